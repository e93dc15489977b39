// What the tests of whole families share, whatever the backend: the tiny checkpoints of tests/peer/make_families.py against
// transformers' logits and autograd's gradients, and their tuning.
#pragma once
#include <algorithm>
#include <filesystem>

#include "loaded.h"
#include "pipeline/quantize.h"
#include "scratch.h"

namespace signround {

inline const Path kFamilies = "tests/data/families";

inline std::vector<std::string> family_names() {
  std::vector<std::string> found;
  for (const auto& entry : std::filesystem::directory_iterator(kFamilies))
    if (entry.is_directory()) found.push_back(entry.path().filename().string());
  std::sort(found.begin(), found.end());
  return found;
}

inline SafetensorsFile peer_of(const std::string& name) { return SafetensorsFile(kFamilies / (name + ".safetensors")); }

// How far from transformers' numbers a backend may be: distance() of the whole tensors.
struct Tolerance {
  double logits, out, gradient;
};

inline void check_logits(Backend& backend, const Model& model, const SafetensorsFile& peer, double tolerance) {
  std::vector<i32> ids;
  for (i64 id : read_values<i64>(peer, "ids")) ids.push_back(static_cast<i32>(id));
  const i64 tokens = static_cast<i64>(ids.size());
  PlanOptions plan;
  plan.tokens = tokens;
  const std::vector<float> x = hidden_states(backend, model, ids, tokens, model.config().layers);
  const std::vector<float> logits = Loaded(backend, model, model.family().head(model.config()), plan).run(backend, x);
  CHECK(distance(logits, read_values<float>(peer, "logits")) < tolerance);
}

// Output of a block alone, from the peer's input, and the gradient of mean((out - target)^2) for each of its linears.
inline void check_block(Backend& backend, const Model& model, const SafetensorsFile& peer, i64 layer, const Tolerance& most) {
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
  const std::vector<float> out = loaded.run(backend, in), target = read_values<float>(peer, program.prefix + "target");
  CHECK(distance(out, read_values<float>(peer, program.prefix + "out")) < most.out);

  std::vector<float> dy(out.size());
  for (size_t i = 0; i < dy.size(); ++i) dy[i] = 2 * (out[i] - target[i]) / static_cast<float>(dy.size());
  write_floats(backend, executor.output_grad(), dy);
  size_t seen = 0, wanted = 0;
  executor.backward(Acc::set, [&](size_t w, Tensor dw) {
    ++seen;
    CAPTURE(program.weights[w].name);
    const std::vector<float> gradient = read_values<float>(peer, cat(program.prefix, "grad.", program.weights[w].name));
    CHECK(distance(read_floats(backend, dw), gradient) < most.gradient);
  });
  for (const TensorInfo& t : peer.tensors()) wanted += t.name.rfind(program.prefix + "grad.", 0) == 0;
  CHECK(seen == wanted);
}

// Twenty steps at 4 bits on random ids, written as `fake` to `dir`/out.
inline QuantizeReport tune_family(const std::string& name, const TempDir& dir, const std::string& device) {
  std::string ids;
  Random random(3);
  const i64 vocabulary = Model((kFamilies / name).string()).config().vocab;
  for (int i = 0; i < 200; ++i) ids += cat(random.engine() % static_cast<u64>(vocabulary), " ");
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
  o.device = device;
  return quantize(o, QuantizeObserver{});
}

}  // namespace signround
