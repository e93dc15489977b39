// Every family's tiny checkpoint (tests/peer/make_families.py): logits against transformers, each block and the gradients of its
// linears against autograd, one tuning at 4 bits, and what an unknown model or option gets for an answer.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <filesystem>

#include "layers.h"
#include "loaded.h"
#include "ops/cpu/select.h"
#include "pipeline/quantize.h"
#include "scratch.h"

using namespace signround;

namespace {

const Path kFamilies = "tests/data/families";

std::vector<std::string> names() {
  std::vector<std::string> found;
  for (const auto& entry : std::filesystem::directory_iterator(kFamilies))
    if (entry.is_directory()) found.push_back(entry.path().filename().string());
  std::sort(found.begin(), found.end());
  return found;
}

SafetensorsFile peer_of(const std::string& name) { return SafetensorsFile(kFamilies / (name + ".safetensors")); }

void check_logits(Backend& backend, const Model& model, const SafetensorsFile& peer) {
  std::vector<i32> ids;
  for (i64 id : read_values<i64>(peer, "ids")) ids.push_back(static_cast<i32>(id));
  const Config& c = model.config();
  PlanOptions plan;
  plan.tokens = static_cast<i64>(ids.size());
  std::vector<float> x = Loaded(backend, model, model.family().embedding(c), plan).run(backend, ids.data());
  for (i64 i = 0; i < c.layers; ++i) x = Loaded(backend, model, model.family().block(c, i), plan).run(backend, x.data());
  x = Loaded(backend, model, model.family().head(c), plan).run(backend, x.data());
  CHECK(distance(x, read_values<float>(peer, "logits")) < 1e-5);
}

// Output and gradients of a block alone, from the peer's input.
void check_block(Backend& backend, const Model& model, const SafetensorsFile& peer, i64 layer) {
  const Program program = model.family().block(model.config(), layer);
  const std::vector<float> in = read_values<float>(peer, program.prefix + "in");
  PlanOptions plan;
  plan.tokens = static_cast<i64>(in.size()) / model.config().hidden;
  plan.tuning = true;
  std::vector<QuantSpec> specs;
  for (const WeightRef& w : program.weights) specs.push_back({.bits = w.linear ? 4 : 16});
  Loaded loaded(backend, model, program, plan, specs);
  const Executor& executor = loaded.stage.executor();
  for (size_t w = 0; w < program.weights.size(); ++w)
    if (executor.wq(w)) backend.copy(executor.wq(w), loaded.stage.weights()[w]);
  const std::vector<float> out = loaded.run(backend, in.data()), target = read_values<float>(peer, program.prefix + "target");
  CHECK(distance(out, read_values<float>(peer, program.prefix + "out")) < 1e-5);

  std::vector<float> dy(out.size());
  for (size_t i = 0; i < dy.size(); ++i) dy[i] = 2 * (out[i] - target[i]) / static_cast<float>(dy.size());
  backend.upload(executor.output_grad(), dy.data());
  size_t seen = 0, wanted = 0;
  executor.backward(Acc::set, [&](size_t w, Tensor dw) {
    ++seen;
    CAPTURE(program.weights[w].name);
    std::vector<float> got(static_cast<size_t>(dw.size()));
    backend.download(got.data(), dw);
    CHECK(distance(got, read_values<float>(peer, cat(program.prefix, "grad.", program.weights[w].name))) < 1e-4);
  });
  for (const TensorInfo& t : peer.tensors()) wanted += t.name.rfind(program.prefix + "grad.", 0) == 0;
  CHECK(seen == wanted);
}

}  // namespace

TEST_CASE("families: logits, blocks and gradients equal those of transformers and autograd") {
  const std::unique_ptr<Backend> backend = make_cpu_backend(Precision::f32);
  for (const std::string& name : names()) {
    CAPTURE(name);
    const Model model((kFamilies / name).string());
    const SafetensorsFile peer = peer_of(name);
    check_logits(*backend, model, peer);
    for (i64 layer = 0; layer < model.config().layers; ++layer) {
      CAPTURE(layer);
      check_block(*backend, model, peer, layer);
    }
  }
}

TEST_CASE("families: tuning at 4 bits lowers the loss of every block") {
  for (const std::string& name : names()) {
    CAPTURE(name);
    const TempDir dir;
    const Model model((kFamilies / name).string());
    std::string ids;
    Random random(3);
    for (int i = 0; i < 200; ++i) ids += cat(random.engine() % static_cast<u64>(model.config().vocab), " ");
    write_file(dir.path / "ids.txt", ids);
    QuantizeOptions o;
    o.model = (kFamilies / name).string();
    o.output = (dir.path / "out").string();
    o.ids = (dir.path / "ids.txt").string();
    o.formats = {"fake"};
    o.spec = {.bits = 4, .group = 32, .symmetric = true};
    o.iters = 20;
    o.nsamples = o.batch_size = 8;
    o.seqlen = 16;
    const QuantizeReport report = quantize(o, QuantizeObserver{});
    CHECK(report.blocks.size() == static_cast<size_t>(model.config().layers));
    for (const BlockReport& block : report.blocks) CHECK(block.best_loss < 0.9 * block.first_loss);
    CHECK(Model(o.output).config().layers == model.config().layers);
  }
}

TEST_CASE("families: names without their base are found") {
  for (const char* name : {"gpt2", "bloom", "qwen2", "opt"}) {
    CAPTURE(name);
    const std::string base = *name == 'g' || *name == 'b' ? "transformer." : "model.";
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
    check_logits(*backend, Model(dir.path.string()), peer_of(name));
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
