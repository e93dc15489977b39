// Every family's tiny checkpoint (tests/peer/make_families.py): logits against transformers, each block and the gradients of its
// linears against autograd, one tuning at 4 bits, and what an unknown model or option gets for an answer.
#include <doctest/doctest.h>

#include <filesystem>

#include "families.h"
#include "layers.h"
#include "ops/cpu/select.h"

using namespace signround;

namespace {

constexpr Tolerance kTolerance{.logits = 1e-5, .out = 1e-5, .gradient = 1e-4};

}  // namespace

TEST_CASE("families: logits, blocks and gradients equal those of transformers and autograd") {
  const std::unique_ptr<Backend> backend = make_cpu_backend(Precision::f32);
  for (const std::string& name : family_names()) {
    CAPTURE(name);
    const Model model((kFamilies / name).string());
    const SafetensorsFile peer = peer_of(name);
    check_logits(*backend, model, peer, kTolerance.logits);
    for (i64 layer = 0; layer < model.config().layers; ++layer) {
      CAPTURE(layer);
      check_block(*backend, model, peer, layer, kTolerance);
    }
  }
}

TEST_CASE("families: tuning at 4 bits lowers the loss of every block") {
  for (const std::string& name : family_names()) {
    CAPTURE(name);
    const TempDir dir;
    const i64 layers = Model((kFamilies / name).string()).config().layers;
    const QuantizeReport report = tune_family(name, dir, "cpu");
    CHECK(report.blocks.size() == static_cast<size_t>(layers));
    for (const BlockReport& block : report.blocks) CHECK(block.best_loss < 0.9 * block.first_loss);
    CHECK(Model((dir.path / "out").string()).config().layers == layers);
  }
}

TEST_CASE("families: names without their base are found") {
  const std::pair<const char*, std::string> bases[] = {
      {"gpt2", "transformer."}, {"bloom", "transformer."}, {"qwen2", "model."}, {"opt", "model."}, {"gpt_neox", "gpt_neox."}};
  for (const auto& family : bases) {
    const std::string name = family.first, base = family.second;
    CAPTURE(name);
    const TempDir dir;
    std::filesystem::copy_file(kFamilies / name / "config.json", dir.path / "config.json");
    const SafetensorsFile original(kFamilies / name / "model.safetensors");
    std::vector<TensorInfo> tensors = original.tensors();
    for (TensorInfo& t : tensors)
      if (t.name.starts_with(base)) t.name = t.name.substr(base.size());
    SafetensorsWriter writer(dir.path / "model.safetensors", tensors);
    for (size_t i = 0; i < tensors.size(); ++i) {
      std::vector<std::byte> bytes(tensors[i].bytes);
      original.read(original.tensors()[i], bytes);
      writer.write(tensors[i].name, bytes);
    }
    writer.finish();
    const std::unique_ptr<Backend> backend = make_cpu_backend(Precision::f32);
    check_logits(*backend, Model(dir.path.string()), peer_of(name), kTolerance.logits);
  }
}

TEST_CASE("families: more positions than a model learned are refused before anything is read") {
  for (const char* name : {"gpt2", "opt"}) {
    QuantizeOptions o;
    o.model = (kFamilies / name).string();
    o.seqlen = 65;
    CHECK(contains(message_of(ErrorKind::usage, [&] { quantize(o, QuantizeObserver{}); }), "learned 64 positions"));
    o.seqlen = 64, o.nsamples = 4, o.batch_size = 5;
    CHECK(contains(message_of(ErrorKind::usage, [&] { quantize(o, QuantizeObserver{}); }), "--batch-size 5 is more than the 4"));
  }
}

TEST_CASE("families: what is not supported is refused by name") {
  const auto refusal = [](const std::string& name, const char* key, Json value) {
    Json config = parse_json(read_file(kFamilies / name / "config.json", 1 << 20));
    config.set(key, std::move(value));
    return message_of(ErrorKind::bad_input, [&] { read_config(config); });
  };
  CHECK(contains(refusal("mistral", "architectures", Json::array({"MambaForCausalLM"})), "\"MambaForCausalLM\" is not"));
  CHECK(contains(refusal("mistral", "hidden_act", "mish"), "hidden_act \"mish\" is not supported"));
  CHECK(contains(refusal("qwen3", "layer_types", Json::array({"linear_attention", "full_attention"})), "\"linear_attention\""));
  CHECK(contains(refusal("qwen3", "layer_types", Json::array({"full_attention"})), "layer_types names 1 layers of 2"));
  CHECK(contains(refusal("qwen3", "rope_parameters", Json::object({{"rope_type", "proportional"}, {"rope_theta", 10000}})),
                 "\"proportional\" is not supported"));
  CHECK(contains(refusal("gemma3", "use_bidirectional_attention", true), "use_bidirectional_attention is true"));
  CHECK(contains(refusal("opt", "layer_norm_elementwise_affine", false), "layer_norm_elementwise_affine is false"));
  CHECK(contains(refusal("gpt2", "scale_attn_by_inverse_layer_idx", true), "scale_attn_by_inverse_layer_idx is true"));
}
