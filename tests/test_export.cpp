// Packing, exporters and the scheme names, against golden words, an independent decoder, and what auto-round 0.16.1 wrote.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <span>

#include "export/export.h"
#include "export/packed_int32.h"
#include "io/bit_packing.h"
#include "io/checkpoint.h"
#include "layers.h"
#include "model/packed.h"
#include "quant/scheme.h"

using namespace signround;

namespace {

const Path kPeer = "tests/data/peer";

std::vector<u32> pack(const std::vector<u8>& values, int bits) {
  std::vector<u32> words(static_cast<size_t>(packed_words(static_cast<i64>(values.size()), bits)));
  pack_bits({words.data(), 1, 0}, {values.data(), 1, 0}, static_cast<i64>(values.size()), 1, bits);
  return words;
}

template <class T>
T element(const std::vector<u8>& bytes, i64 index) {
  T value;
  std::memcpy(&value, bytes.data() + index * static_cast<i64>(sizeof(T)), sizeof(T));
  return value;
}

// Value i of a lane of words, read bit by bit as the format's description has it.
template <class Word>
int decode(const Word& word, i64 i, int bits) {
  int value = 0;
  for (int b = 0; b < bits; ++b) {
    const i64 at = i * bits + b;
    value |= static_cast<int>(word(at / 32) >> (at % 32) & 1) << b;
  }
  return value;
}

// Rounding to nearest on the symmetric grid: the longer side of a group's range gets the code 0 exactly.
QuantizedLinear round_to_nearest(const std::string& name, const std::vector<bf16>& w, i64 rows, i64 cols, const QuantSpec& spec) {
  const i64 groups = spec.groups(cols), width = spec.group_of(cols);
  const float half = static_cast<float>(1 << (spec.bits - 1));
  QuantizedLinear layer{name, rows, cols, spec, DType::bf16, std::vector<u8>(w.size()), {}, {}};
  for (i64 r = 0; r < rows; ++r)
    for (i64 g = 0; g < groups; ++g) {
      const i64 first = r * cols + g * width, last = std::min(first + width, (r + 1) * cols);
      float low = 0, high = 0;
      for (i64 i = first; i < last; ++i) {
        low = std::min(low, static_cast<float>(w[static_cast<size_t>(i)]));
        high = std::max(high, static_cast<float>(w[static_cast<size_t>(i)]));
      }
      const f16 scale((high < -low ? -low : -high) / half);
      for (i64 i = first; i < last; ++i) {
        const float level = std::nearbyint(static_cast<float>(w[static_cast<size_t>(i)]) / static_cast<float>(scale));
        layer.codes[static_cast<size_t>(i)] = static_cast<u8>(std::clamp(level, -half, half - 1) + half);
      }
      layer.scale.push_back(scale);
      layer.zero.push_back(static_cast<u8>(half));
    }
  return layer;
}

}  // namespace

TEST_CASE("bit packing: golden words") {
  std::vector<u8> ramp(32), mixed(32);
  for (u8 i = 0; i < 32; ++i) {
    ramp[i] = i % 8;
    mixed[i] = static_cast<u8>((5 * i + 3) % 8);
  }
  CHECK(pack(ramp, 4) == std::vector<u32>(4, 0x76543210));
  CHECK(pack(mixed, 3) == std::vector<u32>{0x43c67543, 0x7543c675, 0xc67543c6});
  const auto constant = [](u8 value, int bits) { return pack(std::vector<u8>(32, value), bits); };
  CHECK(constant(7, 4) == std::vector<u32>(4, 0x77777777));
  CHECK(constant(127, 8) == std::vector<u32>(8, 0x7f7f7f7f));
  CHECK(constant(1, 2) == std::vector<u32>(2, 0x55555555));
  CHECK(constant(3, 3) == std::vector<u32>{0xdb6db6db, 0xb6db6db6, 0x6db6db6d});
  CHECK(constant(8, 4) == std::vector<u32>(4, 0x88888888));
  CHECK(constant(128, 8) == std::vector<u32>(8, 0x80808080));
  CHECK(constant(2, 2) == std::vector<u32>(2, 0xaaaaaaaa));
  CHECK(constant(4, 3) == std::vector<u32>{0x24924924, 0x49249249, 0x92492492});
}

TEST_CASE("bit packing: what is packed comes back, along either dimension") {
  for (int bits = 2; bits <= 8; ++bits)
    for (i64 rows : {1, 17, 32, 96}) {
      const i64 cols = 64;
      const QuantizedLinear layer = make_layer(rows, cols, {bits, 32, true});
      std::vector<u32> words(static_cast<size_t>(packed_words(cols, bits) * rows));
      std::vector<u8> back(layer.codes.size());
      pack_bits({words.data(), rows, 1}, {layer.codes.data(), 1, cols}, cols, rows, bits);  // down the columns of the words
      unpack_bits({back.data(), 1, cols}, {words.data(), rows, 1}, cols, rows, bits);
      CHECK(back == layer.codes);
      pack_bits({words.data(), 1, packed_words(cols, bits)}, {layer.codes.data(), 1, cols}, cols, rows, bits);  // along the rows
      back.assign(back.size(), 0);
      unpack_bits({back.data(), 1, cols}, {words.data(), 1, packed_words(cols, bits)}, cols, rows, bits);
      CHECK(back == layer.codes);
    }
  CHECK_THROWS_AS(pack(std::vector<u8>(33), 4), Error);
  CHECK_THROWS_AS(pack(std::vector<u8>(32), 9), Error);
}

TEST_CASE("auto_round: an independent decoder finds the grid") {
  const auto exporter = make_exporter("auto_round");
  for (int bits : {2, 3, 4, 8})
    for (i64 group : {32, 64, 128, -1})
      for (const auto& size : {std::pair<i64, i64>{64, 256}, {32, 160}, {96, 32}}) {
        const i64 rows = size.first, cols = size.second;
        const QuantizedLinear layer = make_layer(rows, cols, {bits, group, true});
        const std::vector<EncodedTensor> out = exporter->encode(layer);
        const std::vector<TensorInfo> layout = exporter->layout(layer.name, rows, cols, layer.spec, layer.weight_type);
        REQUIRE(out.size() == 3);
        for (size_t i = 0; i < 3; ++i) {
          CHECK(out[i].info.name == layout[i].name);
          CHECK(out[i].info.shape == layout[i].shape);
          CHECK(out[i].bytes.size() == layout[i].bytes);
        }
        const i64 groups = group < 0 ? 1 : (cols + group - 1) / group, width = group < 0 || group > cols ? cols : group;
        CHECK(layout[0].shape == std::vector<i64>{cols * bits / 32, rows});
        CHECK(layout[1].shape == std::vector<i64>{groups, rows * bits / 32});
        CHECK(layout[2].shape == std::vector<i64>{groups, rows});
        i64 wrong = 0;
        for (i64 r = 0; r < rows; ++r)
          for (i64 c = 0; c < cols; ++c) {
            const i64 g = c / width;
            const int code = decode([&](i64 k) { return element<u32>(out[0].bytes, k * rows + r); }, c, bits);
            const int zero = decode([&](i64 k) { return element<u32>(out[1].bytes, g * (rows * bits / 32) + k); }, r, bits) + 1;
            wrong += code != layer.codes[static_cast<size_t>(r * cols + c)] || zero != 1 << (bits - 1);
            wrong += element<u16>(out[2].bytes, g * rows + r) != layer.scale[static_cast<size_t>(r * groups + g)].bits;
          }
        CHECK(wrong == 0);
      }
}

TEST_CASE("auto_round: what it cannot hold") {
  const auto exporter = make_exporter("auto_round");
  const auto refusal = [&](i64 rows, i64 cols, QuantSpec spec) {
    return message_of(ErrorKind::usage, [&] { exporter->require("layer", rows, cols, spec); });
  };
  CHECK(refusal(64, 64, {4, 128, true}) == "no error");
  CHECK(contains(refusal(64, 64, {5, 128, true}), "the nearest is --bits 4"));
  CHECK(contains(refusal(64, 64, {7, 128, true}), "the nearest is --bits 8"));
  CHECK(contains(refusal(64, 48, {4, 128, true}), "--ignore-layers layer"));
  CHECK(contains(message_of(ErrorKind::usage, [] { make_exporter("autoround"); }), "the nearest is auto_round"));
  QuantizedLinear layer = make_layer(32, 32, {4, 32, true});
  layer.zero[0] = 0;  // would be stored as -1
  CHECK(contains(message_of(ErrorKind::bug, [&] { exporter->encode(layer); }), "zero point 0"));
}

TEST_CASE("auto_round: the configuration") {
  ExportScheme scheme;
  scheme.spec = {4, 128, true};
  scheme.block_prefix = "model.layers";
  scheme.iters = 200;
  scheme.nsamples = 128;
  scheme.seqlen = 2048;
  scheme.batch_size = 8;
  Json config = parse_json(R"({"architectures": ["LlamaForCausalLM"], "vocab_size": 7})");
  const auto configured = [&] {
    const auto configuring = make_exporter("auto_round", scheme);
    configuring->configure(config);
    CHECK(configuring->config_file() == "quantization_config.json");
    return to_text(config.at("quantization_config"));
  };
  const std::string text = configured();
  // The least that vLLM accepts, and nothing else, when everything is as auto-round has it.
  CHECK(text ==
        R"({"bits":4,"data_type":"int","group_size":128,"sym":true,"block_name_to_quantize":"model.layers",)"
        R"("quant_method":"auto-round","packing_format":"auto_round:auto_gptq"})");
  CHECK(config.integer("vocab_size") == 7);

  scheme.lr = scheme.minmax_lr = 1.0 / 200;
  CHECK(configured() == text);

  scheme.spec = {2, -1, true};
  scheme.skipped = {"model.layers.0.mlp.down_proj"};
  scheme.exceptions = {{"model.layers.1.mlp.up_proj", {4, 32, true}}, {"same", {2, -1, true}}};
  scheme.iters = 50;
  scheme.lr = 5e-3;
  scheme.minmax_lr.reset();
  scheme.nsamples = 512;
  scheme.seqlen = 1024;
  scheme.batch_size = 4;
  scheme.accumulate = 2;
  CHECK(configured() ==
        R"({"bits":2,"data_type":"int","group_size":-1,"sym":true,"batch_size":4,"gradient_accumulate_steps":2,"iters":50,)"
        R"("lr":0.005,"minmax_lr":0.005,"nsamples":512,"seqlen":1024,"block_name_to_quantize":"model.layers",)"
        R"("quant_method":"auto-round","packing_format":"auto_round:auto_gptq",)"
        R"("extra_config":{"model.layers.0.mlp.down_proj":{"bits":16,"data_type":"fp"},)"
        R"("model.layers.1.mlp.up_proj":{"bits":4,"group_size":32}}})");
  scheme.iters = 0;  // rounding to nearest: nothing but that is told
  CHECK(contains(configured(), "\"iters\":0"));
  CHECK_FALSE(contains(configured(), "nsamples"));
}

TEST_CASE("fake: weights on the grid, in the original type") {
  const auto exporter = make_exporter("fake");
  for (DType type : {DType::f32, DType::f16, DType::bf16})
    for (const QuantSpec& spec : {QuantSpec{3, 32, true}, QuantSpec{8, 64, false}, QuantSpec{4, -1, false}}) {
      const QuantizedLinear layer = make_layer(5, 80, spec, type);  // neither dimension divides anything
      exporter->require(layer.name, layer.rows, layer.cols, spec);
      const std::vector<EncodedTensor> out = exporter->encode(layer);
      REQUIRE(out.size() == 1);
      CHECK(out[0].info.name == "model.layers.0.mlp.up_proj.weight");
      CHECK(out[0].info.shape == std::vector<i64>{5, 80});
      CHECK(out[0].info.dtype == type);
      i64 wrong = 0;
      for (i64 i = 0; i < 400; ++i) {
        const i64 g = i / 80 * layer.groups() + i % 80 / (spec.group < 0 ? 80 : spec.group);
        const float scale = layer.scale[static_cast<size_t>(g)];
        const float want = scale * static_cast<float>(layer.codes[static_cast<size_t>(i)] - layer.zero[static_cast<size_t>(g)]);
        wrong += type == DType::f32   ? element<float>(out[0].bytes, i) != want
                 : type == DType::f16 ? element<u16>(out[0].bytes, i) != f16(want).bits
                                      : element<u16>(out[0].bytes, i) != bf16(want).bits;
      }
      CHECK(wrong == 0);
    }
  Json config = Json::object({{"vocab_size", 7}});
  exporter->configure(config);
  CHECK(to_text(config) == R"({"vocab_size":7})");
}

TEST_CASE("schemes: names, options beside them, text") {
  CHECK(parse_scheme("W4A16") == QuantSpec{4, 128, true});
  CHECK(parse_scheme("w2a16g64") == QuantSpec{2, 64, true});
  CHECK(parse_scheme("W3A16G32") == QuantSpec{3, 32, true});
  CHECK(parse_scheme("W8A16G-1") == QuantSpec{8, -1, true});
  CHECK(contains(message_of(ErrorKind::usage, [] { parse_scheme("W2A16G46"); }), "the nearest is W2A16G"));
  CHECK(contains(message_of(ErrorKind::usage, [] { parse_scheme(""); }), "scheme \"\" is not known"));
  CHECK(merge_scheme("W4A16", {}, {}, {}) == QuantSpec{4, 128, true});
  CHECK(merge_scheme("W2A16G64", 3, {}, false) == QuantSpec{3, 64, false});
  CHECK(merge_scheme("W2A16G64", {}, -1, true) == QuantSpec{2, -1, true});
  CHECK(contains(message_of(ErrorKind::usage, [] { merge_scheme("W4A16", 9, {}, {}); }), "--bits 9: must be one of 2, 3"));
  CHECK(contains(message_of(ErrorKind::usage, [] { merge_scheme("W4A16", {}, 0, {}); }), "--group-size 0"));
  CHECK(text_of({4, 128, true}) == "W4G128 sym");
  CHECK(text_of({3, -1, false}) == "W3 per row asym");
}

TEST_CASE("schemes: which layers stay") {
  const std::vector<std::string> names = {"model.layers.1.mlp.up_proj", "model.layers.10.mlp.up_proj", "lm_head"};
  const auto reason = [&](size_t i, std::vector<std::string> ignored) { return reason_to_skip(names[i], 64, 96, ignored); };
  CHECK(reason(0, {}).empty());
  CHECK(reason(0, {"up_proj"}) == "ignored by \"up_proj\"");
  CHECK_FALSE(reason(0, {names[0]}).empty());
  CHECK_FALSE(reason(0, {"layers.1"}).empty());
  CHECK(reason(1, {"layers.1"}).empty());
  CHECK(reason(1, {"0.mlp"}).empty());
  CHECK(reason(1, {"o_proj", "gate"}).empty());
  CHECK(reason_to_skip("a", 64, 100, {}) == "64 x 100 is not a multiple of 32 both ways");
  CHECK_FALSE(reason_to_skip("a", 33, 64, {}).empty());
  const auto complaint = [&](std::vector<std::string> ignored) {
    return message_of(ErrorKind::usage, [&] { check_ignored(ignored, names); });
  };
  CHECK(complaint({"lm_head", "mlp", "layers.10."}) == "no error");
  CHECK(contains(complaint({"mlp", "upproj"}), "the nearest is up_proj"));
  CHECK(contains(complaint({"layers.2"}), "--ignore-layers layers.2: no linear layer"));
}

TEST_CASE("auto_round: byte for byte what auto-round 0.16.1 writes for rounding to nearest") {
  const auto exporter = make_exporter("auto_round");
  const Checkpoint original(kPeer / "tiny_llama");
  const Json configs = read_json(kPeer / "tiny_rtn_config.json");
  for (int bits : {2, 3, 4, 8})
    for (i64 group : {32, 64}) {
      const std::string run = cat("b", bits, "_g", group);
      const Checkpoint peer(kPeer / cat("tiny_rtn_", run, ".safetensors"));
      const PackedWeights packed = PackedWeights::described_by(Json::object({{"quantization_config", configs.at(run)}})).value();
      i64 layers = 0;
      for (const TensorInfo* tensor : original.tensors()) {
        if (!contains(tensor->name, "_proj.weight")) continue;
        const std::string name = tensor->name.substr(0, tensor->name.size() - 7);
        CAPTURE(run);
        CAPTURE(name);
        std::vector<bf16> weight(tensor->bytes / 2);
        original.read(tensor->name, std::as_writable_bytes(std::span(weight)));
        const QuantizedLinear layer = round_to_nearest(name, weight, tensor->shape[0], tensor->shape[1], {bits, group, true});
        for (const EncodedTensor& ours : exporter->encode(layer)) {
          std::vector<u8> theirs(peer.at(ours.info.name).bytes);
          peer.read(ours.info.name, std::as_writable_bytes(std::span(theirs)));
          CHECK(peer.at(ours.info.name).shape == ours.info.shape);
          CHECK(theirs == ours.bytes);
        }
        CHECK(packed.read(peer, name, DType::bf16).codes == layer.codes);
        ++layers;
      }
      CHECK(layers == 14);
      Json config = Json::object({});
      ExportScheme scheme;
      scheme.spec = {bits, group, true};
      scheme.block_prefix = "model.layers";
      make_exporter("auto_round", scheme)->configure(config);
      for (const JsonMember& member :
           configs.at(run).object())  // the rest of what the peer says is its version, and how it rounded
        if (member.key != "autoround_version" && member.key != "enable_quanted_input")
          CHECK(config.at("quantization_config").at(member.key) == member.value);
    }
}
