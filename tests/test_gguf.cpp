// GGUF: blocks by a naive decoder and by golden bytes, the container read back, rotary pairs, damage.
#include <doctest/doctest.h>

#include <cstring>

#include "export/gguf.h"
#include "export/gguf_names.h"
#include "export/verify.h"
#include "io/checkpoint.h"
#include "layers.h"
#include "pipeline/quantize.h"
#include "scratch.h"
#include "testing.h"

using namespace signround;

namespace {

float half_at(const u8* p) {
  f16 value;
  std::memcpy(&value, p, 2);
  return value;
}

// Weight `i` of a row of blocks, from the description of the format alone.
float weight(const std::string& format, const u8* row, i64 i) {
  if (format == "gguf:q2_0") {
    const u8* block = row + i / 64 * 18;
    return half_at(block) * static_cast<float>((block[2 + i % 64 / 4] >> 2 * (i % 4) & 3) - 1);
  }
  const i64 bytes = format == "gguf:q8_0" ? 34 : format == "gguf:q4_1" ? 20 : 18;
  const u8* block = row + i / 32 * bytes;
  if (format == "gguf:q8_0") return half_at(block) * static_cast<float>(static_cast<signed char>(block[2 + i % 32]));
  const u8* nibbles = block + bytes - 16;
  const int q = i % 32 < 16 ? nibbles[i % 32] & 15 : nibbles[i % 32 - 16] >> 4;
  if (format == "gguf:q4_1") return half_at(block) * static_cast<float>(q) + half_at(block + 2);
  return half_at(block) * static_cast<float>(q - 8);
}

struct Case {
  const char* format;
  QuantSpec spec;
};
constexpr Case kCases[] = {{"gguf:q4_0", {4, 32, true}},  {"gguf:q4_0", {4, 128, true}}, {"gguf:q4_0", {4, -1, true}},
                           {"gguf:q4_1", {4, 32, false}}, {"gguf:q4_1", {4, 64, false}}, {"gguf:q8_0", {8, 32, true}},
                           {"gguf:q8_0", {8, 64, true}},  {"gguf:q2_0", {2, 64, true}},  {"gguf:q2_0", {2, 128, true}}};

QuantizeOptions rounding(const TempDir& dir, const Case& c, const std::string& model) {
  QuantizeOptions options;
  options.model = model;
  options.output = (dir.path / "out").string();
  options.spec = c.spec;
  options.formats = {c.format};
  options.iters = 0;
  options.ignore_layers = {"layers.1.self_attn.q_proj"};
  return options;
}

}  // namespace

TEST_CASE("gguf: a naive decoder finds the tuned weights, our own the integers") {
  for (const Case& c : kCases) {
    CAPTURE(c.format);
    const i64 rows = 64, cols = 256, group = c.spec.group_of(cols), groups = c.spec.groups(cols);
    const QuantizedLinear layer = make_layer(rows, cols, c.spec);
    const auto exporter = make_exporter(c.format);
    exporter->require(layer.name, rows, cols, c.spec);
    const std::vector<u8> bytes = exporter->encode(layer)[0].bytes;
    const i64 row_bytes = static_cast<i64>(bytes.size()) / rows;
    i64 wrong = 0;
    for (i64 r = 0; r < rows; ++r)
      for (i64 k = 0; k < cols; ++k) {
        const std::size_t g = static_cast<std::size_t>(r * groups + k / group);
        const float scale = layer.scale[g], code = layer.codes[static_cast<std::size_t>(r * cols + k)];
        // q4_1 keeps -zero * scale as one F16: the formula that defines the bridge.
        const float want = c.spec.symmetric ? scale * (code - static_cast<float>(layer.zero[g]))
                                            : scale * code + static_cast<float>(f16(-static_cast<float>(layer.zero[g]) * scale));
        wrong += weight(c.format, bytes.data() + r * row_bytes, k) != want;
      }
    CHECK(wrong == 0);
    const QuantizedLinear back =
        decode_gguf(std::as_bytes(std::span(bytes)), layer.name, rows, cols, c.spec, layer.weight_type);
    CHECK(back.codes == layer.codes);
    CHECK(back.zero == layer.zero);
    CHECK(std::memcmp(back.scale.data(), layer.scale.data(), layer.scale.size() * sizeof(f16)) == 0);
  }
}

TEST_CASE("gguf: golden bytes") {
  const auto block = [](const char* format, int bits, i64 cols, bool symmetric) {
    QuantizedLinear layer{"l",         1,  cols,        {bits, cols, symmetric},
                          DType::bf16, {}, {f16(0.5f)}, {static_cast<u8>(1 << (bits - 1))}};
    for (i64 i = 0; i < cols; ++i) layer.codes.push_back(static_cast<u8>(i % (1 << bits)));
    return make_exporter(format)->encode(layer)[0].bytes;
  };
  std::vector<u8> want = {0x00, 0x38};  // 0.5
  for (int i = 0; i < 16; ++i) want.push_back(static_cast<u8>(i * 17));
  CHECK(block("gguf:q4_0", 4, 32, true) == want);
  want.insert(want.begin() + 2, {0x00, 0xC4});  // -4
  CHECK(block("gguf:q4_1", 4, 32, false) == want);
  want = {0x00, 0xB8};
  want.insert(want.end(), 16, 0x1B);  // 3, 2, 1, 0
  CHECK(block("gguf:q2_0", 2, 64, true) == want);
  CHECK(block("gguf:q8_0", 8, 32, true)[2] == 0x80);
}

TEST_CASE("gguf: what cannot be is refused with the nearest that can") {
  const auto refusal = [](const char* format, QuantSpec spec, i64 cols = 128) {
    return message_of(ErrorKind::usage, [&] { make_exporter(format)->require("layer", 64, cols, spec); });
  };
  CHECK(contains(refusal("gguf:q4_0", {4, 64, false}), "the nearest for this grid is --format gguf:q4_1"));
  CHECK(contains(refusal("gguf:q4_0", {8, 64, true}), "--format gguf:q8_0"));
  CHECK(contains(refusal("gguf:q4_0", {3, 64, true}), "--format auto_round"));
  CHECK(contains(refusal("gguf:q4_0", {6, 64, true}), "--format compressed-tensors"));
  CHECK(contains(refusal("gguf:q2_0", {2, 32, true}), "the nearest is --group-size 64"));
  CHECK(contains(refusal("gguf:q2_0", {2, 64, true}, 96), "--ignore-layers layer"));
  CHECK(contains(message_of(ErrorKind::usage, [] { make_exporter("gguf:q4_9"); }), "the nearest is gguf:q4_0"));
}

TEST_CASE("gguf: rows of q and k in rotary pairs, and back") {
  std::vector<u8> rows;
  for (u8 i = 0; i < 16; ++i) rows.insert(rows.end(), {i, static_cast<u8>(100 + i)});
  const std::vector<std::byte> pairs = to_pairs(std::as_bytes(std::span(rows)), 16, 8);
  std::vector<int> order;
  for (size_t i = 0; i < 16; ++i) order.push_back(static_cast<int>(pairs[2 * i]));
  CHECK(order == std::vector<int>{0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15});
  const std::vector<std::byte> back = to_halves(pairs, 16, 8);
  CHECK(std::memcmp(back.data(), rows.data(), rows.size()) == 0);
}

TEST_CASE("gguf: a whole model, verified, then damaged") {
  for (const Case& c : {kCases[0], kCases[4], kCases[5], kCases[7]}) {
    CAPTURE(c.format);
    const TempDir dir;
    const QuantizeOptions options = rounding(dir, c, "data/model");
    quantize(options, QuantizeObserver{});
    CHECK(verify(options.output).layers == 41);
    const GgufFile file(Path(options.output) / "model.gguf");
    const auto find = [&](const std::string& name) {
      for (const GgufTensor& t : file.tensors())
        if (t.name == name) return t;
      FAIL("no tensor ", name);
      return file.tensors()[0];
    };
    CHECK(find("token_embd.weight").type == GgmlType::f16);
    CHECK(find("blk.0.attn_norm.weight").type == GgmlType::f32);
    CHECK(find("blk.0.ffn_down.weight").shape == std::vector<i64>{256, 768});
    CHECK(find("blk.1.attn_q.weight").type == GgmlType::f16);  // ignored, hence not packed, but in pairs all the same
    const Checkpoint source("data/model");
    std::vector<bf16> q(256 * 256);
    source.read("model.layers.1.self_attn.q_proj.weight", std::as_writable_bytes(std::span(q)));
    const std::vector<std::byte> made = file.read(find("blk.1.attn_q.weight"));
    CHECK(half_at(reinterpret_cast<const u8*>(made.data()) + 256 * 2) == static_cast<float>(q[32 * 256]));

    std::string bytes = read_file(Path(options.output) / "model.gguf", 1 << 30);
    write_file(Path(options.output) / "model.gguf", bytes + "x");
    CHECK(contains(message_of(ErrorKind::verification, [&] { verify(options.output); }), " were written"));
    std::string other = bytes;
    other[other.find("llama.rope.freq_base") + 26] ^= 1;
    write_file(Path(options.output) / "model.gguf", other);
    CHECK(contains(message_of(ErrorKind::verification, [&] { verify(options.output); }), "in front of the tensors"));
    bytes[find("blk.2.ffn_up.weight").offset + 7] ^= 1;
    write_file(Path(options.output) / "model.gguf", bytes);
    CHECK(contains(message_of(ErrorKind::verification, [&] { verify(options.output); }),
                   "model.layers.2.mlp.up_proj: decodes to other integers or scales than were tuned"));
    write_file(Path(options.output) / "model.gguf", bytes.substr(0, bytes.size() / 2));
    CHECK(contains(message_of(ErrorKind::verification, [&] { verify(options.output); }), "reaches beyond the end of the file"));
    for (size_t cut : {0, 3, 20, 100, 5000}) {
      write_file(dir.path / "cut.gguf", bytes.substr(0, cut));
      CHECK_THROWS_AS(GgufFile(dir.path / "cut.gguf"), Error);
    }
  }
}
