// A block's tuning on the GPU against the CPU's, and against itself.
#include <doctest/doctest.h>

#include "cuda_lab.h"
#include "model/executor.h"
#include "model/rope.h"
#include "model/program.h"
#include "quant/signround.h"

using namespace signround;

namespace {

struct Work {
  i64 accumulate = 1;
  bool experts = false;  // beside the MLP
  bool at_once = false;  // all weights step when the backward is over
  bool ahead = false;    // targets lie on the host and come ahead of their step
  i64 hidden = 128, ffn = 192, heads = 2, kv_heads = 1, tokens = 40;
};

// A block of the Llama kind, tuned for 20 steps; the losses of the steps, then v of every quantized weight.
std::vector<double> tune(Backend& backend, const Work& work) {
  constexpr i64 samples = 8, batch = 4;
  const auto [accumulate, experts, at_once, ahead, hidden, ffn, heads, kv_heads, tokens] = work;
  RopeTable table;
  for (int i = 0; i < 32; ++i) table.inv_freq.push_back(std::pow(10000.0, -i / 32.0));
  Builder block("");
  const int x = block.input(hidden);
  const int h = block.rms(x, "norm1", 1e-5f);
  const i64 kv = 64 * kv_heads;
  const RopeShape rope{.heads = heads, .head_dim = 64, .rotary_dim = 64};
  const RopeShape rope_k{.heads = kv_heads, .head_dim = 64, .rotary_dim = 64};
  const int q = block.rope(block.linear(h, "q", hidden), table, rope), k = block.rope(block.linear(h, "k", kv), table, rope_k);
  const int v = block.linear(h, "v", kv);
  const int attended = block.attention(q, k, v, {.heads = heads, .kv_heads = kv_heads, .head_dim = 64, .scale = 0.125f});
  const int mid = block.add(x, block.linear(attended, "o", hidden));
  const int n = block.rms(mid, "norm2", 1e-5f);
  const int up = block.glu(block.linear(n, "gate", ffn), block.linear(n, "up", ffn), Activation::silu);
  int out = block.linear(up, "down", hidden);
  if (experts) {
    const Routing r = block.route(block.router(n, "router", 7), "experts", 2, true);
    const int s = block.dispatch(n, r), g = block.expert_linear(s, r, "experts.*.gate", 64);
    const int inner = block.glu(g, block.expert_linear(s, r, "experts.*.up", 64), Activation::silu);
    out = block.sigmoid_gate(out, block.router(n, "shared_gate", 1));
    out = block.add(out, block.combine(block.expert_linear(inner, r, "experts.*.down", hidden), r));
  }
  block.output(block.add(mid, out));
  const Program program = block.finish();

  PlanOptions options;
  options.batch = batch, options.tokens = tokens, options.tuning = true, options.activation = backend.activation_type();
  options.keep_weight_grads = at_once || accumulate > 1;
  options.linear_scratch = [&](const Backend::LinearShape& shape) { return backend.linear_scratch(shape); };
  std::vector<QuantSpec> specs;
  Lab lab(backend, DType::bf16);
  std::vector<Tensor> weights;
  for (const WeightRef& w : program.weights) {
    const double low = w.linear || w.router ? -0.1 : 0.5, high = w.linear || w.router ? 0.1 : 1.5;
    const i64 rows = w.cols > 0 ? w.rows : 1, cols = w.cols > 0 ? w.cols : w.rows;
    weights.push_back(lab.weight(rows, cols, DType::bf16, DType::bf16, low, high));
    options.trainable.push_back(w.linear);
    options.weight_types.push_back(DType::bf16);
    specs.push_back({.bits = w.linear ? 2 : 16, .group = 32});
  }
  const Plan plan = make_plan(program, options);
  const Buffer memory(backend, plan.bytes, "activations");
  std::vector<float> angles = rope_angles(table, tokens);
  const Tensor rope_table = lab.raw(tokens, 64, DType::f32);
  backend.upload(rope_table, angles.data());
  const Executor executor(backend, program, plan, memory.data(), weights, {rope_table});

  TuneOptions tune_options{.steps = 20, .batch = batch, .accumulate = accumulate, .tokens = tokens};
  tune_options.lr = tune_options.minmax_lr = 0.05;
  const auto place = [&](Arena& arena, TuningState& state) {
    state = place_state(arena, tune_options);
    return BlockQuant::place(arena, arena, program, weights, specs, true);
  };
  Arena measure;
  TuningState state;
  place(measure, state);
  Arena arena(backend, measure.used(), "parameters");
  const BlockQuant quant = place(arena, state);
  const Tensor inputs = lab.in(samples * tokens, hidden);
  Tensor targets = view(nullptr, backend.activation_type(), samples * tokens, hidden);
  const Buffer target_memory(ahead ? backend.host_memory() : backend, aligned(targets.bytes()), "targets");
  targets.data = target_memory.data();
  for (i64 first = 0; first < samples * tokens; first += batch * tokens) {
    backend.copy(executor.input(), inputs.slice(first, batch * tokens));
    executor.forward(true);
    backend.copy(targets.slice(first, batch * tokens), executor.output());
  }
  const Tensor room = ahead ? lab.raw(2 * accumulate * batch * tokens, hidden, backend.activation_type()) : Tensor{};
  PythonRandom random(1);
  Sampler sampler(random, samples);
  i64 issued = 0;
  const TuneResult result =
      tune_block(backend, executor, quant, state, inputs, targets, room, sampler, tune_options, [&](i64 n) { issued = n; });
  CHECK(issued == 20);
  std::vector<double> all(result.losses.begin(), result.losses.end());
  quant.each([&](size_t w) {
    const std::vector<double> learned = lab.read(quant.tensors[w].v);
    all.insert(all.end(), learned.begin(), learned.end());
  });
  return all;
}

}  // namespace

TEST_CASE("tuning: weights that step at once, at the end of the backward, learn what they learn one by one") {
  const std::unique_ptr<Backend> cpu = make_cpu_backend(Precision::f32);
  for (bool experts : {false, true})
    CHECK(tune(*cpu, {.experts = experts, .at_once = true}) == tune(*cpu, {.experts = experts}));
}

TEST_CASE("tuning: targets that come ahead are those that are read where they lie") {
  const std::unique_ptr<Backend> cpu = make_cpu_backend(Precision::f32);
  for (i64 accumulate : {1, 2})
    CHECK(tune(*cpu, {.accumulate = accumulate, .ahead = true}) == tune(*cpu, {.accumulate = accumulate}));
}

TEST_CASE("cuda: a block's tuning follows the CPU's, and repeats itself to the bit, with a graph and without") {
  if (absent()) return;
  const std::unique_ptr<Backend> cpu = make_cpu_backend(Precision::f32);
  for (i64 accumulate : {1, 2}) {
    const std::vector<double> want = tune(*cpu, {.accumulate = accumulate});
    for (Precision precision : kPrecisions) {
      const std::unique_ptr<Backend> gpu = make_backend("cuda", precision), plain = make_backend("cuda", precision, false);
      const std::vector<double> got = tune(*gpu, {.accumulate = accumulate});
      CHECK(got == tune(*gpu, {.accumulate = accumulate}));
      CHECK(got == tune(*plain, {.accumulate = accumulate}));
      CHECK(got == tune(*gpu, {.accumulate = accumulate, .at_once = true}));
      for (Backend* each : {gpu.get(), plain.get()}) CHECK(got == tune(*each, {.accumulate = accumulate, .ahead = true}));
      for (size_t step = 0; step < 20; ++step) CHECK(got[step] == doctest::Approx(want[step]).epsilon(0.01));
      CHECK(got[19] < got[0]);
    }
  }
}

TEST_CASE("cuda: tuning with gradients in fp8 follows that in bf16") {
  if (absent() || no_fp8()) return;
  Work wide{.hidden = 2560, .ffn = 2560, .heads = 40, .kv_heads = 8, .tokens = 640};
  for (i64 accumulate : {1, 2}) {
    wide.accumulate = accumulate;
    const std::unique_ptr<Backend> bf16 = make_backend("cuda", Precision::bf16), fp8 = make_backend("cuda", Precision::fp8);
    const std::vector<double> want = tune(*bf16, wide), got = tune(*fp8, wide);
    CHECK(got == tune(*fp8, wide));
    CHECK(got != want);
    for (size_t step = 0; step < 20; ++step) CHECK(got[step] == doctest::Approx(want[step]).epsilon(0.01));
    CHECK(got[19] < got[0]);
  }
}

TEST_CASE("cuda: a block of experts is tuned as on the CPU, and to the same bits each time") {
  if (absent()) return;
  const std::unique_ptr<Backend> cpu = make_cpu_backend(Precision::f32);
  const std::vector<double> want = tune(*cpu, {.experts = true});
  for (Precision precision : kPrecisions) {
    const std::unique_ptr<Backend> gpu = make_backend("cuda", precision), plain = make_backend("cuda", precision, false);
    const std::vector<double> got = tune(*gpu, {.experts = true});
    CHECK(got == tune(*gpu, {.experts = true}));
    CHECK(got == tune(*plain, {.experts = true}));
    CHECK(got == tune(*gpu, {.experts = true, .at_once = true}));
    // Rounded to bf16 some tokens choose another expert.
    const double epsilon = precision == Precision::f32 ? 0.01 : 0.05;
    for (size_t step = 0; step < 20; ++step) CHECK(got[step] == doctest::Approx(want[step]).epsilon(epsilon));
    CHECK(got[19] < got[0]);
  }
}
