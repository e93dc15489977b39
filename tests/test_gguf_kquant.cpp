// K-quants in GGUF: blocks by a naive reader and by golden bytes, rows that are not made of super-blocks, a whole model.
#include <doctest/doctest.h>

#include <cstring>

#include "export/gguf.h"
#include "export/gguf_names.h"
#include "export/loaders.h"
#include "export/verify.h"
#include "io/checkpoint.h"
#include "layers.h"
#include "ops/cpu/select.h"
#include "pipeline/quantize.h"
#include "qdq_linear.h"
#include "scratch.h"

using namespace signround;
using namespace signround::SIGNROUND_ISA;

namespace {

constexpr const char* kFormats[] = {"gguf:q2_k", "gguf:q3_k", "gguf:q4_k", "gguf:q5_k", "gguf:q6_k"};
QuantSpec grid_named(const std::string& format) { return gguf_grid(format).value(); }

float half_at(const u8* p) {
  f16 value;
  std::memcpy(&value, p, 2);
  return value;
}

// Weight `i` of a row of blocks, from the description of each format alone.
float weight(GgmlType type, const u8* row, i64 i) {
  const i64 j = i % kSuperBlock, half = j / 128, l = j % 32;
  const u8* b = row + i / kSuperBlock * block_of(type).bytes;
  const auto six = [](const u8* s, i64 k, bool minimum) {
    const u8 *low = s + (minimum ? 4 : 0), *both = s + 8;
    if (k < 4) return low[k] & 63;
    return (minimum ? both[k - 4] >> 4 : both[k - 4] & 15) | low[k - 4] >> 6 << 4;
  };
  switch (type) {
    case GgmlType::q2_k: {
      const int q = b[16 + half * 32 + l] >> j % 128 / 32 * 2 & 3, s = b[j / 16];
      return half_at(b + 80) * static_cast<float>(s & 15) * static_cast<float>(q) -
             half_at(b + 82) * static_cast<float>(s >> 4);
    }
    case GgmlType::q3_k: {
      const u8* s = b + 96;
      const i64 k = j / 16;
      const int scale = ((k < 8 ? s[k] & 15 : s[k - 8] >> 4) | (s[8 + k % 4] >> k / 4 * 2 & 3) << 4) - 32;
      const int q = (b[32 + half * 32 + l] >> j % 128 / 32 * 2 & 3) + ((b[l] >> j / 32 & 1) ? 0 : -4);
      return half_at(b + 108) * static_cast<float>(scale) * static_cast<float>(q);
    }
    case GgmlType::q4_k:
    case GgmlType::q5_k: {
      const u8* nibbles = b + (type == GgmlType::q5_k ? 48 : 16) + j / 64 * 32;
      int q = j % 64 < 32 ? nibbles[l] & 15 : nibbles[l] >> 4;
      if (type == GgmlType::q5_k) q += (b[16 + l] >> j / 32 & 1) * 16;
      return half_at(b) * static_cast<float>(six(b + 4, j / 32, false)) * static_cast<float>(q) -
             half_at(b + 2) * static_cast<float>(six(b + 4, j / 32, true));
    }
    case GgmlType::q6_k: {
      const u8* low = b + half * 64 + j % 64;
      const int q = (j % 128 < 64 ? *low & 15 : *low >> 4) | (b[128 + half * 32 + l] >> j % 128 / 32 * 2 & 3) << 4;
      return half_at(b + 208) * static_cast<float>(static_cast<signed char>(b[192 + j / 16])) * static_cast<float>(q - 32);
    }
    default: {  // q5_0, q5_1
      const i64 bytes = block_of(type).bytes;
      const u8 *block = row + i / 32 * bytes, *high = block + bytes - 20, *nibbles = block + bytes - 16;
      const int q = (l < 16 ? nibbles[l] & 15 : nibbles[l - 16] >> 4) + (high[l / 8] >> l % 8 & 1) * 16;
      if (type == GgmlType::q5_0) return half_at(block) * static_cast<float>(q - 16);
      return half_at(block) * static_cast<float>(q) + half_at(block + 2);
    }
  }
}

QuantizedLinear as_layer(const Linear<bf16>& l) {
  return {"model.layers.0.mlp.up_proj", l.rows, l.cols, l.spec, DType::bf16, l.codes, l.scale, l.zero, l.factor, l.offset};
}

}  // namespace

TEST_CASE("kquant: a naive reader of the blocks finds the weights that were tuned, to the bit") {
  Random random;
  const std::unique_ptr<Backend> backend = make_cpu_backend(Precision::f32);
  for (const char* format : kFormats) {
    CAPTURE(format);
    const i64 rows = 64, cols = 512;
    Linear<bf16> l(rows, cols, grid_named(format), converted<bf16>(random.values(rows * cols, -0.05, 0.06)));
    l.dwq = converted<float>(random.values(rows * cols));
    for (int i = 0; i < 3; ++i) l.quantize(*backend), l.step(*backend, 0.2f, 0.1f);
    l.quantize(*backend);
    const QuantizedLinear layer = as_layer(l);
    const auto exporter = make_exporter(format);
    exporter->require(layer.name, rows, cols, l.spec);
    const std::vector<u8> bytes = exporter->encode(layer)[0].bytes;
    const GgmlType type = gguf_type(format);
    std::vector<float> exact(layer.codes.size());
    dequantize(tensor(exact), layer);
    i64 wrong = 0, wrong_tuned = 0;
    for (i64 r = 0; r < rows; ++r)
      for (i64 c = 0; c < cols; ++c) {
        const size_t at = static_cast<size_t>(r * cols + c);
        const float found = weight(type, bytes.data() + r * cols / kSuperBlock * block_of(type).bytes, c);
        wrong += found != exact[at];
        wrong_tuned += bf16(found).bits != l.wq[at].bits && found != 0;  // 0 may have either sign
      }
    CHECK(wrong == 0);
    CHECK(wrong_tuned == 0);
    const QuantizedLinear back = decode_gguf(std::as_bytes(std::span(bytes)), layer.name, rows, cols, l.spec, DType::bf16);
    CHECK(grid_digest(back) == grid_digest(layer));
  }
  for (const QuantSpec& spec : {QuantSpec{5, 32, true}, QuantSpec{5, 32, false}}) {  // what rows of other lengths become
    const QuantizedLinear layer = make_layer(32, 96, spec);
    const std::vector<u8> bytes = make_exporter(spec.symmetric ? "gguf:q4_k" : "gguf:q5_k")->encode(layer)[0].bytes;
    i64 wrong = 0;
    for (size_t i = 0; i < layer.codes.size(); ++i) {
      const float scale = layer.scale[i / 32], code = layer.codes[i], zero = layer.zero[i / 32];
      const float want = spec.symmetric ? scale * (code - zero) : scale * code + static_cast<float>(f16(-zero * scale));
      const i64 row_bytes = static_cast<i64>(bytes.size()) / 32, at = static_cast<i64>(i);
      wrong += weight(gguf_type(spec), bytes.data() + at / 96 * row_bytes, at % 96) != want;
    }
    CHECK(wrong == 0);
    const QuantizedLinear back = decode_gguf(std::as_bytes(std::span(bytes)), layer.name, 32, 96, spec, DType::bf16);
    CHECK(grid_digest(back) == grid_digest(layer));
  }
}

TEST_CASE("kquant: golden bytes") {
  using Bytes = std::vector<u8>;
  const auto block = [](const char* format, auto code, auto factor, auto zero) {
    const QuantSpec spec = grid_named(format);
    QuantizedLinear layer{"l", 1, kSuperBlock, spec, DType::bf16, {}, {}, {}};
    resize_grid(layer);
    layer.scale[0] = f16(0.5f);
    if (!spec.symmetric) layer.offset[0] = f16(2.0f);
    for (int i = 0; i < kSuperBlock; ++i) layer.codes[static_cast<size_t>(i)] = static_cast<u8>(code(i));
    for (size_t k = 0; k < layer.factor.size(); ++k) layer.factor[k] = static_cast<i8>(factor(static_cast<int>(k)));
    for (size_t k = 0; k < layer.zero.size(); ++k) layer.zero[k] = static_cast<u8>(zero(static_cast<int>(k)));
    return make_exporter(format)->encode(layer)[0].bytes;
  };
  const auto joined = [](std::initializer_list<Bytes> parts) {
    Bytes all;
    for (const Bytes& part : parts) all.insert(all.end(), part.begin(), part.end());
    return all;
  };
  const auto ignored = [](int) { return 0; };
  const Bytes half = {0x00, 0x38}, two = {0x00, 0x40};
  Bytes nibbles;  // codes i mod 16 and their like
  for (int i = 0; i < 128; ++i) nibbles.push_back(static_cast<u8>(i % 16 * 17));
  const auto sixes = [](int k) { return 8 * k + 7; };
  const auto down = [](int k) { return 63 - 8 * k; };
  const Bytes packed = {0x87, 0x8F, 0xD7, 0xDF, 0x7F, 0x77, 0x2F, 0x27, 0xF7, 0x7F, 0xF7, 0x7F};
  CHECK(block("gguf:q4_k", [](int i) { return i % 16; }, sixes, down) == joined({half, two, packed, nibbles}));
  Bytes fifth(32, 0x00);
  std::fill(fifth.begin() + 16, fifth.end(), u8{0xFF});
  CHECK(block("gguf:q5_k", [](int i) { return i % 32; }, sixes, down) == joined({half, two, packed, fifth, nibbles}));
  Bytes fours;
  for (int k = 0; k < 16; ++k) fours.push_back(static_cast<u8>((k % 15 + 1) | (15 - k) << 4));
  CHECK(block("gguf:q2_k", [](int i) { return i / 32 % 4; }, [](int k) { return k % 15 + 1; }, [](int k) { return 15 - k; }) ==
        joined({fours, Bytes(64, 0xE4), half, two}));
  const Bytes signed_sixes = {0x80, 0xB3, 0xE6, 0x19, 0x4C, 0x7F, 0xA2, 0xD5, 0x90, 0x90, 0x94, 0xA4};
  CHECK(block("gguf:q3_k", [](int i) { return i / 32; }, [](int k) { return 3 * k - 32; }, ignored) ==
        joined({Bytes(32, 0xF0), Bytes(64, 0xE4), signed_sixes, half}));
  Bytes upper, bytes;
  for (int i = 0; i < 64; ++i) upper.push_back(i % 32 < 16 ? 0x88 : 0xDD);
  for (int k = 0; k < 16; ++k) bytes.push_back(static_cast<u8>(0xF0 + k));
  CHECK(block("gguf:q6_k", [](int i) { return i % 64; }, [](int k) { return k - 16; }, ignored) ==
        joined({nibbles, upper, bytes, half}));
}

TEST_CASE("kquant: rows that are not made of super-blocks, and what cannot be") {
  const auto fallback = [](const char* format, i64 cols) { return name_of(gguf_type(gguf_fallback(grid_named(format), cols))); };
  CHECK(fallback("gguf:q4_k", 512) == "Q4_K");
  CHECK(fallback("gguf:q2_k", 576) == "Q4_0");
  CHECK(fallback("gguf:q3_k", 896) == "Q4_0");
  CHECK(fallback("gguf:q4_k", 896) == "Q5_0");
  CHECK(fallback("gguf:q5_k", 96) == "Q5_1");
  CHECK(fallback("gguf:q6_k", 96) == "Q8_0");
  CHECK(gguf_fallback({4, 64, true}, 96) == QuantSpec{4, 64, true});
  QuantizeOptions options;
  options.model = "data/model";
  options.spec = grid_named("gguf:q4_k");
  options.formats = {"gguf:q4_k", "fake"};
  CHECK(plan_run(options).fallbacks.empty());
  options.model = "tests/data/peer/tiny_llama";
  const std::vector<std::string> lines = plan_run(options).fallbacks;
  REQUIRE(lines.size() == 2);
  CHECK(contains(lines[0], "inputs as Q5_0: Q4_K takes multiples of 256"));

  const auto refusal = [](const char* format, const QuantSpec& spec) {
    return message_of(ErrorKind::usage, [&] { require_format(format, {{"layer", 64, 256, spec, DType::bf16}}, {}); });
  };
  CHECK(contains(refusal("gptq", grid_named("gguf:q4_k")), "layer: format gptq has no scales of two levels"));
  CHECK(contains(refusal("gguf:q4_0", grid_named("gguf:q4_k")), "the nearest for this grid is --format gguf:q4_k"));
  CHECK(contains(refusal("gguf:q4_k", {4, 32, false}), "the nearest for this grid is --format gguf:q4_1"));
  CHECK(refusal("gguf:q4_k", {5, 32, true}) == "no error");
  for (const char* format : kFormats) {
    const std::vector<Verdict> verdicts = who_loads(format, {{"layer", 64, 256, grid_named(format), DType::bf16}});
    for (const Verdict& v : verdicts)
      CHECK(v.loads == (v.engine != "TensorRT-LLM"));
  }
}

TEST_CASE("kquant: a whole model is tuned, written, read by the naive reader, verified, damaged") {
  for (const char* format : {"gguf:q4_k", "gguf:q3_k"}) {
    CAPTURE(format);
    const TempDir dir;
    QuantizeOptions options;
    options.model = "data/model";
    options.output = (dir.path / "out").string();
    options.spec = grid_named(format);
    options.formats = {format, "fake"};
    options.iters = 8, options.nsamples = 8, options.seqlen = 32, options.batch_size = 4;
    const QuantizeReport report = quantize(options, QuantizeObserver{});
    double first = 0, best = 0;
    for (const BlockReport& block : report.blocks) first += block.first_loss, best += block.best_loss;
    CHECK(best < 0.97 * first);
    const Path packed(report.outputs[0]);
    CHECK(verify(packed).layers == 42);
    const GgufFile file(packed / "model.gguf");
    const Checkpoint fake(report.outputs[1]);
    const GgufArchitecture& architecture = gguf_architecture(read_config(fake.config()));
    i64 wrong = 0, compared = 0;
    for (const GgufTensor& t : file.tensors()) {
      if (t.type != gguf_type(format)) continue;
      for (const TensorInfo* info : fake.tensors()) {
        if (gguf_name(info->name, architecture) != t.name) continue;
        std::vector<bf16> want(info->bytes / 2);
        fake.read(info->name, std::as_writable_bytes(std::span(want)));
        std::vector<std::byte> blocks = file.read(t);
        const i64 rows = t.shape[0], cols = t.shape[1];
        if (rotates(info->name)) blocks = to_halves(blocks, rows, 64);
        for (i64 i = 0; i < rows * cols; ++i) {
          const u8* row = reinterpret_cast<const u8*>(blocks.data()) + i / cols * static_cast<i64>(blocks.size()) / rows;
          wrong += static_cast<float>(bf16(weight(t.type, row, i % cols))) != static_cast<float>(want[static_cast<size_t>(i)]);
          ++compared;
        }
      }
    }
    CHECK(compared == report.quantized_weights);
    CHECK(wrong == 0);
    std::string bytes = read_file(packed / "model.gguf", 1 << 30);
    bytes[file.tensors()[0].offset + 20] ^= 1;
    write_file(packed / "model.gguf", bytes);
    CHECK_THROWS_AS(verify(packed), Error);
  }
}
