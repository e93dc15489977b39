// Layers with a grid of their own: the file that names them, what each format makes of it, and who can load that.
#include <doctest/doctest.h>

#include "export/convert.h"
#include "export/verify.h"
#include "io/gguf.h"
#include "model/model.h"
#include "model/packed.h"
#include "pipeline/quantize.h"
#include "quant/layer_rules.h"
#include "scratch.h"

using namespace signround;

namespace {

LayerRules rules(const std::string& json) { return LayerRules::parse(parse_json(json), "layers.json"); }

std::string refusal(const std::string& json) {
  return error_of([&] {
    const std::vector<std::string> names = {"model.layers.1.self_attn.q_proj", "model.layers.10.mlp.up_proj", "lm_head"};
    rules(json).check_keys(names);
  });
}

// A model rounded to nearest with such a file, into `formats`, a folder each.
Path quantized(const TempDir& dir, const std::string& model, const QuantSpec& spec, const std::string& json,
               const std::vector<std::string>& formats) {
  write_file(dir / "layers.json", json);
  QuantizeOptions options;
  options.model = model;
  options.output = (dir / "out").string();
  options.spec = spec;
  options.layer_config = (dir / "layers.json").string();
  options.formats = formats;
  options.formats.push_back("fake");
  options.iters = 0;
  quantize(options, QuantizeObserver{});
  return dir / "out";
}

const std::string kTiny = "tests/data/peer/tiny_llama";
const std::string kMixed = R"({"down_proj": {"bits": 8, "group_size": -1},
                               "^model\\.layers\\.1\\.self_attn\\.[qkv]_proj$": {"bits": 2},
                               "layers.0.mlp.up_proj": {"bits": 16}, "layers.0.mlp.gate_proj": {"bits": 16}})";

std::string loads(const std::string& engine, const std::string& format, const std::vector<PlannedLayer>& layers) {
  for (const Verdict& v : who_loads(format, layers))
    if (v.engine == engine) return (v.loads ? "yes, " : "no, ") + v.rule;
  return "";
}

}  // namespace

TEST_CASE("layer rules: a whole name, then the first key that fits; what a key does not say stays") {
  const LayerRules r = rules(R"({"layers.1": {"bits": 8}, "\\.1.*_proj$": {"sym": false}, "^model.layers.2": {"group_size": -1},
                                 "model.layers.1.mlp.up_proj": {"bits": 16, "data_type": "fp"}})");
  const auto spec = [&](const std::string& name) {
    const LayerRules::Rule* rule = r.rule_for(name);
    return rule ? rule->applied_to({4, 64, true}) : QuantSpec{4, 64, true};
  };
  CHECK(spec("model.layers.1.mlp.down_proj") == QuantSpec{8, 64, true});
  CHECK(spec("model.layers.10.mlp.down_proj") == QuantSpec{4, 64, false});  // no part of a number: the expression
  CHECK(spec("model.layers.2.mlp.down_proj") == QuantSpec{4, -1, true});
  CHECK(spec("my.model.layers.2.mlp.down_proj") == QuantSpec{4, 64, true});  // not at the start
  CHECK(spec("model.layers.3.mlp.down_proj") == QuantSpec{4, 64, true});
  CHECK_FALSE(spec("model.layers.1.mlp.up_proj").quantized());
}

TEST_CASE("layer rules: an error is one line that names the key") {
  CHECK(refusal(R"({"q_prj": {"bits": 8}})") ==
        "layers.json: \"q_prj\": is no part of any linear layer's name; the nearest is q_proj");
  CHECK(contains(refusal(R"({"^q_proj": {"bits": 8}})"), "\"^q_proj\": is found in no linear layer's name"));
  CHECK(refusal(R"({"q_proj": {"bits": 9}})") == "layers.json: \"q_proj\": bits 9: must be one of 2, 3, 4, 5, 6, 7, 8, 16");
  CHECK(contains(refusal(R"({"q_proj": {"group_size": 48}})"), "\"q_proj\": group_size 48: must be one of"));
  CHECK(contains(refusal(R"({"q_proj": {"bitz": 4}})"), "\"q_proj\": \"bitz\" is not known here; the nearest is bits"));
  CHECK(contains(refusal(R"({"q_proj": {"sym": 1}})"), "layers.json: \"q_proj\": "));
  CHECK(contains(refusal(R"({"q_proj": {}})"), "\"q_proj\": says nothing"));
  CHECK(contains(refusal(R"({"q_proj": 8})"), "\"q_proj\": "));
  CHECK(contains(refusal(R"({"q_proj": {"bits": 8, "data_type": "mx_fp"}})"), "data_type \"mx_fp\": must be int"));
  CHECK(contains(refusal(R"({"(q_proj": {"bits": 8}})"), "\"(q_proj\": "));
  CHECK(contains(refusal(R"({".*": {"bits": 8}})"), "\".*\": "));  // matches the empty text
  CHECK(contains(refusal(R"({"": {"bits": 8}})"), "a key is empty"));
  CHECK(contains(refusal(R"({"lm_head": {"bits": 8}})"), "the head stays at 16 bits"));
  CHECK(contains(refusal(R"({"q_proj": {"bits": 8}, "q_proj": {"bits": 4}})"), "q_proj"));
  CHECK(refusal(R"({"lm_head": {"bits": 16}, "layers.10": {"bits": 2}})") == "");
}

TEST_CASE("layer rules: every format says it, reads it and is verified") {
  const TempDir dir;
  const std::vector<std::string> formats = {"auto_round", "gptq", "gptq_v2", "compressed-tensors"};
  const Path out = quantized(dir, kTiny, {4, 32, true}, kMixed, formats);
  for (const std::string& format : formats) {
    CAPTURE(format);
    CHECK(verify(out / format).layers == 12);
    const Checkpoint checkpoint(out / format);
    const PackedWeights packed = PackedWeights::described_by(checkpoint.config()).value();
    CHECK(packed.spec("model.layers.0.mlp.down_proj") == QuantSpec{8, -1, true});
    CHECK(packed.spec("model.layers.1.self_attn.k_proj") == QuantSpec{2, 32, true});
    CHECK(packed.spec("model.layers.0.self_attn.k_proj") == QuantSpec{4, 32, true});
    CHECK_FALSE(packed.holds(checkpoint, "model.layers.0.mlp.up_proj"));
    for (const std::string& other : formats) {
      const Path made = dir / cat(format, "-", other);
      convert({.input = (out / format).string(), .output = made.string(), .format = other, .force = true});
      CHECK(read_file(made / "model.safetensors", 1 << 30) == read_file(out / other / "model.safetensors", 1 << 30));
      CHECK(read_file(made / "README.md", 1 << 20) == read_file(out / other / "README.md", 1 << 20));
    }
  }
  CHECK(contains(read_file(out / "gptq" / "README.md", 1 << 20),
                 "| but | 3 layers: 2 bits, symmetric, a scale for each 32 weights; 2 layers: 8 bits"));
  const Json dynamic = read_json(out / "gptq" / "config.json").at("quantization_config").at("dynamic");
  CHECK(to_text(dynamic.at(R"(-:^model\.layers\.0\.mlp\.gate_up_proj$)")) == "{}");
  CHECK(dynamic.at(R"(+:^model\.layers\.1\.self_attn\.qkv_proj$)").integer("bits") == 2);
  const Json compressed = read_json(out / "compressed-tensors" / "config.json").at("quantization_config");
  CHECK(compressed.at("config_groups").object().size() == 3);
  CHECK(compressed.at("config_groups").at("group_0").array("targets").size() == 2);
  CHECK(to_text(compressed.at("config_groups").at("group_2").at("targets")) == "[\"Linear\"]");
}

TEST_CASE("layer rules: a GGUF file has a type for each grid") {
  const TempDir dir;
  const Path out = quantized(dir, "data/model", {4, 64, true},
                             R"({"down_proj": {"bits": 8}, "v_proj": {"sym": false}, "layers.0.mlp.up_proj": {"bits": 2}})",
                             {"gguf:q4_0", "gptq_v2"});
  convert({.input = (out / "gptq_v2").string(), .output = (dir / "later").string(), .format = "gguf:q4_0"});
  CHECK(read_file(dir / "later" / "model.gguf", 1 << 30) == read_file(out / "gguf-q4_0" / "model.gguf", 1 << 30));
  CHECK(verify(out / "gguf-q4_0").layers == 42);
  const GgufFile file(out / "gguf-q4_0" / "model.gguf");
  const auto type = [&](const std::string& name) {
    for (const GgufTensor& t : file.tensors())
      if (t.name == name) return t.type;
    FAIL("no tensor ", name);
    return GgmlType::f32;
  };
  CHECK(type("blk.1.ffn_down.weight") == GgmlType::q8_0);
  CHECK(type("blk.1.attn_v.weight") == GgmlType::q4_1);
  CHECK(type("blk.0.ffn_up.weight") == GgmlType::q2_0);
  CHECK(type("blk.1.ffn_up.weight") == GgmlType::q4_0);
}

TEST_CASE("layer rules: what a format cannot say is refused before tuning, with the nearest that can") {
  const auto refused = [](const std::string& format, const QuantSpec& spec, const std::string& json) {
    const TempDir dir;
    const std::string message = error_of(ErrorKind::usage, [&] { quantized(dir, "data/model", spec, json, {format}); });
    CHECK(path_exists(dir / "out") == message.empty());
    return message;
  };
  CHECK(contains(refused("awq", {4, 64, false}, R"({"down_proj": {"group_size": 32}})"),
                 "model.layers.0.mlp.down_proj has another; the nearest is to leave it at 16 bits"));
  CHECK(refused("awq", {4, 64, false}, R"({"down_proj": {"bits": 16}})") == "");
  CHECK(contains(refused("gguf:q4_0", {4, 64, true}, R"({"down_proj": {"bits": 3}})"),
                 "format gguf has no blocks of 3 bits, symmetric; the nearest is 4 or 8 bits for this layer"));
  CHECK(contains(refused("gguf:q4_0", {4, 32, true}, R"({"down_proj": {"bits": 2}})"), "the nearest is --group-size 64"));
  CHECK(contains(refused("gptq", {4, 32, true}, R"({"down_proj": {"sym": false}})"), "--format gptq_v2"));
  CHECK(contains(refused("compressed-tensors", {4, 32, true}, R"({"down_proj": {"bits": 3, "sym": false}})"),
                 "4 and 8 bits only"));
}

TEST_CASE("layer rules: who can load a mixture") {
  const QuantSpec w4{4, 64, true}, w8{8, 64, true}, a4{4, 64, false}, w2{2, 64, true}, plain{16, -1, true};
  const auto layers = [](const QuantSpec& q, const QuantSpec& k, const QuantSpec& up, const QuantSpec& down) {
    const std::string attention = "model.layers.0.self_attn.", mlp = "model.layers.0.mlp.";
    std::vector<PlannedLayer> list;
    for (const auto& [name, spec] : {std::pair(attention + "q_proj", q), std::pair(attention + "k_proj", k),
                                     std::pair(mlp + "up_proj", up), std::pair(mlp + "down_proj", down)})
      list.push_back({name, 256, 256, spec, DType::bf16});
    return list;
  };
  CHECK(loads("vLLM", "gptq", layers(w4, w4, w4, w8)) == "yes, with Marlin kernels");
  CHECK(loads("vLLM", "gptq", layers(w4, w8, w4, w4)) ==
        "no, the parts of model.layers.0.self_attn.qkv_proj must be quantized alike");
  CHECK(loads("SGLang", "auto_round", layers(w4, plain, w4, w4)) ==
        "no, the parts of model.layers.0.self_attn.qkv_proj must be quantized alike");
  CHECK(loads("transformers", "auto_round", layers(w4, plain, w4, a4)).starts_with("yes"));
  CHECK(loads("vLLM", "auto_round", layers(w4, w4, w4, w2)) ==
        "yes, with Marlin kernels and its Humming kernels (versions after August 2026)");
  CHECK(loads("vLLM", "auto_round", layers(w4, w4, w4, a4)) == "no, not with symmetric and asymmetric layers in one model");
  CHECK(loads("vLLM", "compressed-tensors", layers(w4, w4, w4, a4)) == "yes, with Marlin kernels");
  CHECK(loads("vLLM", "gptq", layers(w4, w4, w4, w2)) == "no, not at 2 bits");
  CHECK(loads("llama.cpp", "gguf:q4_0", layers(w4, w8, a4, plain)) == "yes, with any version");
  const auto experts = [&](const QuantSpec& one, const QuantSpec& other) {
    return std::vector<PlannedLayer>{{"model.layers.0.mlp.experts.0.up_proj", 256, 256, one, DType::bf16},
                                     {"model.layers.0.mlp.experts.7.down_proj", 256, 256, other, DType::bf16}};
  };
  CHECK(loads("vLLM", "gptq", experts(w4, w4)).starts_with("yes"));
  CHECK(loads("vLLM", "gptq", experts(w4, w8)) == "no, the parts of model.layers.0.mlp.experts must be quantized alike");
  CHECK(loads("TensorRT-LLM", "gptq", layers(w4, w4, w4, plain)).starts_with("no, one grid for all layers"));
}
