// Packed checkpoints read back: our own, and made-up ones of other writers, good and bad.
#include <doctest/doctest.h>
#include <unistd.h>

#include <cstring>
#include <span>

#include "export/export.h"
#include "export/packed_int32.h"
#include "io/checkpoint.h"
#include "layers.h"
#include "model/packed.h"

using namespace signround;

namespace {

// A model directory that is removed again, with the tensors that a layer was exported to.
struct PackedModel {
  Path path = std::filesystem::temp_directory_path() / cat("signround_test_packed_", getpid());
  Json config = Json::object({{"architectures", Json::array({"LlamaForCausalLM"})}});

  explicit PackedModel(const std::vector<EncodedTensor>& tensors) {
    make_directories(path);
    std::vector<TensorInfo> infos;
    for (const EncodedTensor& t : tensors) infos.push_back(t.info);
    SafetensorsWriter writer(path / "model.safetensors", infos);
    for (const EncodedTensor& t : tensors) writer.write(t.info.name, std::as_bytes(std::span(t.bytes)));
    writer.finish();
    write_file(path / "config.json", to_text(config));
  }
  ~PackedModel() { remove_tree(path); }
};

Json config_with(Json quantization) { return Json::object({{"quantization_config", std::move(quantization)}}); }

PackedWeights described(Json quantization) { return PackedWeights::described_by(config_with(std::move(quantization))).value(); }

}  // namespace

TEST_CASE("packed weights: what was exported is read again") {
  const auto exporter = make_exporter("auto_round");
  for (int bits : {2, 3, 4, 8})
    for (i64 group : {32, 64, -1}) {
      const QuantizedLinear layer = make_layer(96, 160, {bits, group, true});
      const PackedModel model(exporter->encode(layer));
      Json config = Json::object({});
      ExportScheme scheme;
      scheme.spec = {4, 128, true};
      scheme.skipped = {"other"};
      scheme.exceptions = {{layer.name, layer.spec}};
      make_exporter("auto_round", scheme)->configure(config);
      const PackedWeights packed = PackedWeights::described_by(config).value();
      const Checkpoint checkpoint(model.path);
      CHECK(packed.holds(checkpoint, layer.name));
      CHECK_FALSE(packed.holds(checkpoint, "other"));
      CHECK(packed.shape(checkpoint, layer.name) == std::pair<i64, i64>{96, 160});
      const QuantizedLinear back = packed.read(checkpoint, layer.name, DType::f16);
      CHECK(back.name == layer.name);
      CHECK(back.spec == layer.spec);
      CHECK(back.codes == layer.codes);
      CHECK(back.zero == layer.zero);
      CHECK(back.weight_type == DType::f16);
      CHECK(std::memcmp(back.scale.data(), layer.scale.data(), layer.scale.size() * sizeof(f16)) == 0);
    }
  CHECK_FALSE(PackedWeights::described_by(Json::object({{"vocab_size", 7}})).has_value());
  CHECK_FALSE(PackedWeights::described_by(config_with(nullptr)).has_value());
}

TEST_CASE("packed weights: both conventions of the zero point, and columns in order") {
  QuantizedLinear layer = make_layer(32, 64, {4, 32, false});
  layer.zero[5] = 15;
  const auto read = [&](const std::vector<EncodedTensor>& tensors, Json quantization) {
    const PackedModel model(tensors);
    return described(std::move(quantization)).read(Checkpoint(model.path), layer.name, DType::bf16);
  };
  const auto json = [](const char* text) { return parse_json(text); };
  const std::vector<EncodedTensor> v1 = encode_packed_int32(layer, 1), v2 = encode_packed_int32(layer, 0);
  const char* plain =
      R"({"quant_method": "auto-round", "packing_format": "auto_round", "bits": 4, "group_size": 32, "sym": false})";
  const char* gptq =
      R"({"quant_method": "gptq", "bits": 4, "group_size": 32, "sym": false, "desc_act": true, "dynamic": {"-:.*gate": {}}})";
  const char* gptq_v2 = R"({"quant_method": "gptq", "checkpoint_format": "gptq_v2", "bits": 4, "group_size": 32, "sym": false})";
  CHECK(read(v2, json(plain)).zero == layer.zero);
  CHECK(read(v1, json(gptq)).zero == layer.zero);
  CHECK(read(v2, json(gptq_v2)).zero == layer.zero);
  CHECK(read(v2, json(gptq)).zero[5] == 16);

  std::vector<EncodedTensor> indexed = v1;
  indexed.push_back({tensor_info(layer.name + ".g_idx", DType::i32, {64}), std::vector<u8>(256)});
  for (size_t c = 32; c < 64; ++c) indexed[3].bytes[4 * c] = 1;
  CHECK(read(indexed, json(gptq)).codes == layer.codes);
  indexed[3].bytes[0] = 1;
  CHECK(contains(message_of(ErrorKind::bad_input, [&] { read(indexed, json(gptq)); }), ".g_idx: groups of columns"));
}

TEST_CASE("packed weights: what is refused") {
  const QuantizedLinear layer = make_layer(32, 64, {4, 32, true});
  const std::vector<EncodedTensor> good = make_exporter("auto_round")->encode(layer);
  const std::string start = R"({"quant_method": "auto-round", )";
  const auto complaint = [&](const std::vector<EncodedTensor>& tensors, const std::string& rest) {
    return message_of(ErrorKind::bad_input, [&] {
      const PackedModel model(tensors);
      described(parse_json(start + rest)).read(Checkpoint(model.path), layer.name, DType::bf16);
    });
  };
  const std::string w4 = R"("bits": 4, "group_size": 32)";
  CHECK(complaint(good, w4 + "}") == "no error");
  CHECK(contains(complaint(good, R"("bits": 4, "group_size": 64})"),
                 ".qzeros: I32 [2,4] where bits and group size of config.json want I32 [1,4]"));
  CHECK(contains(complaint(good, R"("bits": 8, "group_size": 32})"), ".qzeros: I32 [2,4] where"));
  CHECK(contains(complaint(good, R"("bits": 3, "group_size": 32})"), ".qweight: I32 [8,32] is no packed weight of 3 bits"));
  CHECK(contains(complaint(good, R"("bits": 9, "group_size": 32})"), "bits 9 is not supported"));
  CHECK(contains(complaint(good, R"("bits": 4, "group_size": 0})"), "group_size 0"));
  CHECK(contains(complaint(good, R"("group_size": 32})"), "bits"));
  CHECK(contains(complaint(good, w4 + R"(, "data_type": "mx_fp"})"), "data_type \"mx_fp\""));
  CHECK(contains(complaint(good, w4 + R"(, "act_bits": 8})"), "act_bits"));
  CHECK(contains(complaint(good, w4 + R"(, "packing_format": "auto_round:fp8"})"),
                 "supported: auto_round:auto_gptq, auto_round:auto_awq, auto_round"));
  CHECK(contains(complaint(good, w4 + R"(, "packing_format": "auto_round"})"),
                 "a zero point of 7 cannot be in a symmetric grid of 4 bits"));
  CHECK(contains(complaint(good, w4 + R"(, "extra_config": {"model.layers.0.mlp.up_proj": {"bits": 16, "data_type": "fp"}}})"),
                 "config.json says that this layer is not quantized"));
  CHECK(contains(complaint(good, w4 + R"(, "extra_config": {"a": {"bits": 1}}})"),
                 "config.json: quantization_config: extra_config: \"a\": bits 1"));
  CHECK(contains(message_of(ErrorKind::bad_input, [] { described(parse_json(R"({"quant_method": "hqq", "bits": 4})")); }),
                 "quant_method \"hqq\" is not supported; supported: auto-round"));
  CHECK(contains(message_of(ErrorKind::bad_input, [] { described(parse_json(R"({"quant_method": "awq", "bits": 8})")); }),
                 "bits 8 is not supported by AWQ"));
  CHECK(contains(message_of(ErrorKind::bad_input,
                            [] { described(parse_json(R"({"quant_method": "gptq", "bits": 4, "dynamic": {"+:a": {}}})")); }),
                 "dynamic: \"+:a\""));

  std::vector<EncodedTensor> bad = good;
  const f16 infinity(1e9f);
  std::memcpy(bad[2].bytes.data() + 2 * 33, &infinity, 2);
  CHECK(contains(complaint(bad, w4 + "}"), ".scales: element [1,1] is not finite"));
  bad = good;
  bad[2].info.dtype = DType::bf16;
  CHECK(contains(complaint(bad, w4 + "}"), ".scales: BF16 [2,32] where"));
  bad = good;
  bad.pop_back();
  CHECK(contains(complaint(bad, w4 + "}"), ".scales"));
}
