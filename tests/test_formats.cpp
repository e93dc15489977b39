// One tuning, every format: each is decoded here by a naive reader of its own, written from the format's description alone, and
// all of them have the integers and scales that were tuned, bit for bit.
#include <doctest/doctest.h>

#include <cstring>
#include <functional>
#include <span>

#include "export/export.h"
#include "io/checkpoint.h"
#include "layers.h"
#include "model/packed.h"
#include "quant/scheme.h"
#include "scratch.h"
#include "testing.h"

using namespace signround;

namespace {

// The tensors that a layer became, by the ending of their names.
struct Tensors {
  std::vector<EncodedTensor> all;

  const EncodedTensor& at(const std::string& ending) const {
    for (const EncodedTensor& t : all)
      if (t.info.name.ends_with("." + ending)) return t;
    FAIL("no tensor ", ending);
    return all[0];
  }
  template <class T>
  T value(const std::string& ending, i64 row, i64 col) const {
    const EncodedTensor& t = at(ending);
    const i64 width = t.info.shape.size() == 2 ? t.info.shape[1] : 1;
    T v;
    std::memcpy(&v, t.bytes.data() + (row * width + col) * static_cast<i64>(sizeof v), sizeof v);
    return v;
  }
  u32 word(const std::string& ending, i64 row, i64 col) const { return value<u32>(ending, row, col); }
};

// Bits [i*bits, (i+1)*bits) of a stream of words.
int from_stream(const std::function<u32(i64)>& word, i64 i, int bits) {
  int value = 0;
  for (i64 b = 0; b < bits; ++b) value |= static_cast<int>(word((i * bits + b) / 32) >> ((i * bits + b) % 32) & 1) << b;
  return value;
}

// Nibble order of AWQ as its kernels have it: output 8k+j lies at bits 4*order[j].
int awq_nibble(u32 word, i64 column) {
  constexpr int order[8] = {0, 4, 1, 5, 2, 6, 3, 7};
  return static_cast<int>(word >> (4 * order[column % 8]) & 15);
}

struct Element {
  int code, zero;
  u16 scale;
  bool operator==(const Element&) const = default;
};

using Decoder = std::function<Element(const Tensors&, i64 row, i64 col, i64 group, const QuantSpec&)>;

Decoder gptq(int zero_offset) {
  return [=](const Tensors& t, i64 r, i64 c, i64 g, const QuantSpec& s) {
    return Element{from_stream([&](i64 k) { return t.word("qweight", k, r); }, c, s.bits),
                   from_stream([&](i64 k) { return t.word("qzeros", g, k); }, r, s.bits) + zero_offset,
                   t.value<u16>("scales", g, r)};
  };
}

Element awq(const Tensors& t, i64 r, i64 c, i64 g, const QuantSpec&) {
  return {awq_nibble(t.word("qweight", c, r / 8), r), awq_nibble(t.word("qzeros", g, r / 8), r), t.value<u16>("scales", g, r)};
}

// Signed integers there, 2^(b-1) added before packing; here taken away and added again in the grid's own terms.
Element compressed(const Tensors& t, i64 r, i64 c, i64 g, const QuantSpec& s) {
  const int half = 1 << (s.bits - 1);
  const int code = from_stream([&](i64 k) { return t.word("weight_packed", r, k); }, c, s.bits) - half;
  const int zero =
      s.symmetric ? 0 : from_stream([&](i64 k) { return t.word("weight_zero_point", k, g); }, r, s.bits) - half;
  return {code + half, zero + half, t.value<u16>("weight_scale", r, g)};
}

struct Case {
  const char* format;
  QuantSpec spec;
  Decoder decode;
};

std::vector<Case> cases() {
  std::vector<Case> list;
  for (const int bits : {2, 3, 4, 8})
    for (const i64 group : {i64{32}, i64{64}, i64{-1}}) {
      const QuantSpec sym{bits, group, true}, asym{bits, group, false};
      list.push_back({"auto_round", sym, gptq(1)});
      list.push_back({"auto_round", asym, bits == 4 ? Decoder(awq) : gptq(0)});
      list.push_back({"gptq", sym, gptq(1)});
      list.push_back({"gptq_v2", sym, gptq(0)});
      list.push_back({"gptq_v2", asym, gptq(0)});
      list.push_back({"compressed-tensors", sym, compressed});
      if (bits == 4) list.push_back({"awq", asym, awq});
      if (bits >= 4) list.push_back({"compressed-tensors", asym, compressed});
    }
  for (const int bits : {5, 6, 7}) list.push_back({"compressed-tensors", {bits, 64, true}, compressed});
  return list;
}

ExportScheme scheme_of(const QuantSpec& spec) {
  ExportScheme scheme;
  scheme.spec = spec;
  scheme.block_prefix = "model.layers";
  return scheme;
}

QuantizedLinear with_zero_zero(QuantizedLinear layer) {
  if (!layer.spec.symmetric) layer.zero[0] = 0;  // what the first version of GPTQ cannot say
  return layer;
}

std::vector<u32> words_of(const EncodedTensor& t) {
  std::vector<u32> words(t.bytes.size() / 4);
  std::memcpy(words.data(), t.bytes.data(), t.bytes.size());
  return words;
}

}  // namespace

TEST_CASE("formats: an independent decoder of each finds the tuned integers and scales") {
  for (const Case& c : cases()) {
    const i64 rows = 64, cols = 192;
    CAPTURE(c.format);
    CAPTURE(text_of(c.spec));
    const QuantizedLinear layer = with_zero_zero(make_layer(rows, cols, c.spec));
    const auto exporter = make_exporter(c.format, scheme_of(c.spec));
    exporter->require(layer.name, rows, cols, c.spec);
    const Tensors tensors{exporter->encode(layer)};
    const std::vector<TensorInfo> layout = exporter->layout(layer.name, rows, cols, c.spec, layer.weight_type);
    REQUIRE(layout.size() == tensors.all.size());
    for (std::size_t i = 0; i < layout.size(); ++i) {
      CHECK(layout[i].name == tensors.all[i].info.name);
      CHECK(layout[i].shape == tensors.all[i].info.shape);
      CHECK(layout[i].bytes == tensors.all[i].bytes.size());
    }
    const i64 width = c.spec.group < 0 ? cols : c.spec.group, groups = cols / width;
    i64 wrong = 0;
    for (i64 r = 0; r < rows; ++r)
      for (i64 k = 0; k < cols; ++k) {
        const std::size_t g = static_cast<std::size_t>(r * groups + k / width);
        const Element want{layer.codes[static_cast<std::size_t>(r * cols + k)], layer.zero[g], layer.scale[g].bits};
        wrong += !(c.decode(tensors, r, k, k / width, c.spec) == want);
      }
    CHECK(wrong == 0);
    if (std::string(c.format).starts_with("gptq"))
      for (i64 k = 0; k < cols; ++k) CHECK(tensors.value<i32>("g_idx", k, 0) == k / width);
  }
}

TEST_CASE("formats: golden words") {
  QuantizedLinear layer = make_layer(32, 32, {4, 32, false});
  for (std::size_t i = 0; i < layer.codes.size(); ++i) layer.codes[i] = static_cast<u8>(i / 32 % 8);  // the row's number
  for (std::size_t r = 0; r < 32; ++r) layer.zero[r] = static_cast<u8>(r % 8);
  const Tensors awq_tensors{make_exporter("awq")->encode(layer)};
  CHECK(words_of(awq_tensors.at("qweight")) == std::vector<u32>(32 * 4, 0x75316420));
  CHECK(words_of(awq_tensors.at("qzeros")) == std::vector<u32>(4, 0x75316420));
  const Tensors compressed_tensors{make_exporter("compressed-tensors")->encode(layer)};
  CHECK(words_of(compressed_tensors.at("weight_zero_point")) == std::vector<u32>(4, 0x76543210));
  CHECK(compressed_tensors.value<i64>("weight_shape", 0, 0) == 32);

  // 3 bits: values 10 and 21 of 32 straddle two words.
  QuantizedLinear three = make_layer(32, 32, {3, 32, true});
  for (std::size_t i = 0; i < three.codes.size(); ++i) three.codes[i] = static_cast<u8>((5 * (i % 32) + 3) % 8);
  const std::vector<u32> packed = words_of(Tensors{make_exporter("compressed-tensors")->encode(three)}.at("weight_packed"));
  CHECK(std::vector<u32>(packed.begin(), packed.begin() + 3) == std::vector<u32>{0x43c67543, 0x7543c675, 0xc67543c6});
  const Tensors gptq_tensors{make_exporter("gptq")->encode(three)};
  CHECK(gptq_tensors.word("qweight", 0, 7) == 0x43c67543);
  CHECK(gptq_tensors.word("qweight", 2, 31) == 0xc67543c6);
  CHECK(words_of(gptq_tensors.at("qzeros")) == std::vector<u32>{0xdb6db6db, 0xb6db6db6, 0x6db6db6d});
  CHECK(words_of(Tensors{make_exporter("gptq_v2")->encode(three)}.at("qzeros")) ==
        std::vector<u32>{0x24924924, 0x49249249, 0x92492492});
}

TEST_CASE("formats: what was written is read again, and is the same from every format") {
  for (const Case& c : cases()) {
    CAPTURE(c.format);
    CAPTURE(text_of(c.spec));
    const QuantizedLinear layer = with_zero_zero(make_layer(96, 128, c.spec));
    ExportScheme scheme = scheme_of(c.spec);
    scheme.skipped = {"model.layers.1.mlp.up_proj"};
    const auto exporter = make_exporter(c.format, scheme);
    const std::vector<EncodedTensor> tensors = exporter->encode(layer);
    const TempDir dir;
    std::vector<TensorInfo> infos;
    for (const EncodedTensor& t : tensors) infos.push_back(t.info);
    SafetensorsWriter writer(dir.path / "model.safetensors", infos);
    for (const EncodedTensor& t : tensors) writer.write(t.info.name, std::as_bytes(std::span(t.bytes)));
    writer.finish();
    Json config = Json::object({{"torch_dtype", "bfloat16"}});
    exporter->configure(config);
    const PackedWeights packed = PackedWeights::described_by(config).value();
    const Checkpoint checkpoint(dir.path);
    CHECK(packed.holds(checkpoint, layer.name));
    CHECK(packed.shape(checkpoint, layer.name) == std::pair<i64, i64>{96, 128});
    const QuantizedLinear back = packed.read(checkpoint, layer.name, layer.weight_type);
    CHECK(back.spec == layer.spec);
    CHECK(back.codes == layer.codes);
    CHECK(back.zero == layer.zero);
    CHECK(std::memcmp(back.scale.data(), layer.scale.data(), layer.scale.size() * sizeof(f16)) == 0);
  }
}

TEST_CASE("formats: configurations, layers with a grid of their own among them") {
  const std::string name = "model.layers.1.mlp.up_proj";
  const auto config_of = [&](const char* format, const QuantSpec& spec, bool exception) {
    ExportScheme scheme = scheme_of(spec);
    scheme.skipped = {"model.layers.0.mlp.down_proj"};
    if (exception) scheme.exceptions = {{name, {8, 32, spec.symmetric}}};
    Json config = Json::object({{"torch_dtype", "bfloat16"}});
    make_exporter(format, scheme)->configure(config);
    return config;
  };
  for (const char* format : {"auto_round", "gptq_v2", "compressed-tensors"}) {
    const PackedWeights packed = PackedWeights::described_by(config_of(format, {4, 64, true}, true)).value();
    CHECK(packed.spec("model.layers.0.mlp.up_proj") == QuantSpec{4, 64, true});
    CHECK(packed.spec(name) == QuantSpec{8, 32, true});
  }
  CHECK(config_of("auto_round", {4, 64, false}, true).at("quantization_config").string("packing_format") == "auto_round");
  CHECK(config_of("auto_round", {4, 64, false}, false).at("quantization_config").string("packing_format") ==
        "auto_round:auto_awq");
  CHECK(to_text(config_of("gptq", {4, 128, true}, true)) ==
        R"({"torch_dtype":"float16","quantization_config":{"quant_method":"gptq","checkpoint_format":"gptq","bits":4,)"
        R"("group_size":128,"sym":true,"desc_act":false,"true_sequential":false,"damp_percent":0.01,"lm_head":false,)"
        R"("dynamic":{"-:^model\\.layers\\.0\\.mlp\\.down_proj$":{},)"
        R"("+:^model\\.layers\\.1\\.mlp\\.up_proj$":{"bits":8,"group_size":32,"sym":true}}}})");
  CHECK(to_text(config_of("awq", {4, 128, false}, false)) ==
        R"({"torch_dtype":"float16","quantization_config":{"quant_method":"awq","version":"gemm","bits":4,"group_size":128,)"
        R"("zero_point":true,"modules_to_not_convert":["lm_head","model.layers.0.mlp.down_proj"]}})");
  const Json compressed_config = config_of("compressed-tensors", {4, -1, true}, false).at("quantization_config");
  CHECK(to_text(compressed_config.at("config_groups").at("group_0").at("weights")) ==
        R"({"num_bits":4,"type":"int","symmetric":true,"strategy":"channel","group_size":null,"dynamic":false})");
  CHECK(to_text(compressed_config.at("ignore")) == R"(["lm_head","model.layers.0.mlp.down_proj"])");
  CHECK(message_of(ErrorKind::usage, [&] { config_of("awq", {4, 64, false}, true); }) ==
        "format awq has one grid for all layers, but model.layers.1.mlp.up_proj has another; the nearest is to leave it at "
        "16 bits (\"bits\": 16), or --format auto_round");
}

TEST_CASE("formats: what cannot be is refused with the nearest that can") {
  const auto refusal = [](const char* format, QuantSpec spec, i64 cols = 128) {
    return message_of(ErrorKind::usage, [&] { make_exporter(format, scheme_of(spec))->require("layer", 64, cols, spec); });
  };
  CHECK(contains(refusal("gptq", {4, 128, false}), "the nearest is --format gptq_v2"));
  CHECK(contains(refusal("awq", {4, 128, true}), "the nearest is --asym"));
  CHECK(contains(refusal("awq", {8, 128, false}), "the nearest is --bits 4"));
  CHECK(contains(refusal("awq", {4, 128, false}, 192), "192 inputs are no multiple of 128; the nearest is --group-size 32"));
  CHECK(contains(refusal("compressed-tensors", {3, 128, false}), "or --bits 4"));
  CHECK(contains(refusal("compressed-tensors", {4, 128, true}, 192), "the nearest is --group-size 32"));
  CHECK(contains(refusal("gptq", {5, 128, true}), "no 5 bits; the nearest is --bits 4, or --format compressed-tensors"));
  CHECK(refusal("compressed-tensors", {5, 128, true}) == "no error");
  CHECK(refusal("gptq", {3, 128, true}, 192) == "no error");
  CHECK(contains(message_of(ErrorKind::usage, [] { make_exporter("gptqv2"); }), "the nearest is gptq_v2"));
}
