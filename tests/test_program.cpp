// The plan of a block, and its backward as a whole against dual numbers.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>

#include "dual.h"
#include "model/executor.h"
#include "model/rope.h"
#include "model/explain.h"
#include "model/family.h"
#include "ops/cpu/cpu_backend.h"
#include "testing.h"

using namespace signround;
using SIGNROUND_ISA::CpuBackend;

namespace {

Config tiny_config(bool biases) {
  Config c;
  c.architecture = "LlamaForCausalLM";
  c.hidden = 12;
  c.ffn = 20;
  c.layers = 1;
  c.heads = 4;
  c.kv_heads = 2;
  c.head_dim = 6;
  c.vocab = 11;
  c.norm_eps = 1e-5f;
  c.qkv_bias = c.o_bias = c.mlp_bias = biases;
  c.rope.inv_freq = {1.0, 0.2, 0.04};
  return c;
}

PlanOptions tuning(const Program& program, i64 batch, i64 tokens, DType type, bool accumulate = false) {
  PlanOptions o;
  o.batch = batch;
  o.tokens = tokens;
  o.tuning = true;
  o.activation = o.weight_grad = type;
  o.keep_weight_grads = accumulate;
  for (const WeightRef& w : program.weights) {
    o.trainable.push_back(w.linear);
    o.weight_types.push_back(type);
  }
  return o;
}

// A plan is wrong if two tensors that live at the same time share a byte.
void check_no_overlap(const Plan& plan) {
  for (size_t i = 0; i < plan.placements.size(); ++i)
    for (size_t j = 0; j < i; ++j) {
      const Placement &a = plan.placements[i], &b = plan.placements[j];
      const bool meet = a.first <= b.last && b.first <= a.last;
      const bool overlap = a.offset < b.offset + b.bytes && b.offset < a.offset + a.bytes;
      CHECK_MESSAGE(!(meet && overlap), a.name, " and ", b.name);
      CHECK(a.offset + a.bytes <= plan.bytes);
    }
}

// Deterministic values in [-1, 1).
struct Values {
  u64 state = 88172645463325252u;
  double next() {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return static_cast<double>(state >> 11) * 0x1p-52 - 1;
  }
};

// A block with random weights on CpuBackend<T>; every number is drawn in the same order for every T.
template <class T>
struct Block {
  Block(const Program& program, const PlanOptions& options)
      : backend(Precision::f32, "test"), plan(make_plan(program, options)), arena(backend, plan.bytes, "arena") {
    for (const WeightRef& w : program.weights) memory.emplace_back(static_cast<size_t>(w.rows * std::max<i64>(w.cols, 1)));
    for (const RopeTable& t : program.rope_tables) {
      tables.push_back(rope_angles(t, options.tokens));
      table_tensors.push_back(view(tables.back().data(), DType::f32, options.tokens, 2 * static_cast<i64>(t.inv_freq.size())));
    }
    for (size_t i = 0; i < program.weights.size(); ++i) {
      const WeightRef& w = program.weights[i];
      weights.push_back(w.cols > 0 ? view(memory[i].data(), dtype_of<T>, w.rows, w.cols)
                                   : view(memory[i].data(), dtype_of<T>, w.rows));
    }
    executor = std::make_unique<Executor>(backend, program, plan, arena.data(), weights, table_tensors);
  }

  CpuBackend<T> backend;
  Plan plan;
  Buffer arena;
  std::vector<std::vector<T>> memory;
  std::vector<std::vector<float>> tables;
  std::vector<Tensor> table_tensors, weights;
  std::unique_ptr<Executor> executor;
};

// <J u, dy> from one forward on duals, with every tuned weight moving along u, against <u, J^T dy> from the backward in double.
void dot_test(const Program& program, i64 batch, i64 tokens, bool accumulate) {
  Block<double> real(program, tuning(program, batch, tokens, DType::f64, accumulate));
  Block<Dual> dual(program, tuning(program, batch, tokens, DType::dual, accumulate));
  Values values;
  std::vector<std::vector<double>> direction;
  for (size_t w = 0; w < program.weights.size(); ++w) {
    direction.emplace_back();
    for (size_t i = 0; i < real.memory[w].size(); ++i) {
      real.memory[w][i] = values.next() * 0.7 + (program.weights[w].cols == 0 ? 0.5 : 0);
      direction[w].push_back(program.weights[w].linear ? values.next() : 0);
      dual.memory[w][i] = Dual{real.memory[w][i], direction[w][i]};
    }
    if (!program.weights[w].linear) continue;
    std::memcpy(real.executor->wq(w).data, real.memory[w].data(), static_cast<size_t>(real.executor->wq(w).bytes()));
    std::memcpy(dual.executor->wq(w).data, dual.memory[w].data(), static_cast<size_t>(dual.executor->wq(w).bytes()));
  }
  double* x = real.executor->input().as<double>();
  Dual* xd = dual.executor->input().as<Dual>();
  for (i64 i = 0; i < real.executor->input().size(); ++i) {
    x[i] = values.next();
    xd[i] = Dual{x[i], 0};
  }
  real.executor->forward();
  dual.executor->forward();
  double forward = 0, backward = 0, size = 0;
  for (i64 i = 0; i < real.executor->output().size(); ++i) {
    const double dy = values.next();
    real.executor->output_grad().as<double>()[i] = dy;
    const Dual y = dual.executor->output().as<Dual>()[i];
    CHECK(y.v == doctest::Approx(real.executor->output().as<double>()[i]).epsilon(1e-13));
    forward += y.d * dy;
  }
  size_t seen = 0;
  real.executor->backward(Acc::set, [&](size_t w, Tensor dw) {
    ++seen;
    for (i64 i = 0; i < dw.size(); ++i) {
      const double term = direction[w][static_cast<size_t>(i)] * dw.as<double>()[i];
      backward += term;
      size += std::abs(term);
    }
  });
  CHECK(seen == 7);
  CHECK(std::abs(forward - backward) <= 1e-12 * size);
}

}  // namespace

TEST_CASE("plan: tensors that live together never share memory") {
  for (const bool accumulate : {false, true}) {
    const Program program = llama_block(tiny_config(true), 0);
    const Plan plan = make_plan(program, tuning(program, 2, 5, DType::f32, accumulate));
    check_no_overlap(plan);
    i64 sum = 0;
    for (const Placement& p : plan.placements) sum += p.bytes;
    CHECK(plan.bytes < sum);
    PlanOptions inference;
    inference.tokens = 7;
    check_no_overlap(make_plan(program, inference));
  }
}

TEST_CASE("plan: what lies above the first tuned weight has no gradient") {
  const Program program = llama_block(tiny_config(false), 0);
  const Plan plan = make_plan(program, tuning(program, 1, 4, DType::f32));
  int norms = 0, inputs = 0;
  for (size_t s = 0; s < program.steps.size(); ++s) {
    if (program.steps[s].op == Op::rms) norms += !plan.steps[s].backward;
    if (program.steps[s].op == Op::linear) inputs += !plan.steps[s].grad_in[0];
  }
  CHECK(norms == 1);   // the first one
  CHECK(inputs == 3);  // q, k, v
}

TEST_CASE("plan: a linear's backward has the scratch that its device asks for, while it runs") {
  const Config config = tiny_config(false);
  const Program program = llama_block(config, 0);
  PlanOptions options = tuning(program, 2, 5, DType::f32);
  std::vector<Backend::LinearShape> asked;
  options.linear_scratch = [&](const Backend::LinearShape& s) {
    asked.push_back(s);
    return s.dx ? i64{1000} : i64{0};  // none for q, k, v, whose input needs no gradient
  };
  const Plan plan = make_plan(program, options);
  check_no_overlap(plan);
  REQUIRE(asked.size() == 7);
  CHECK(asked[0].rows == 10);  // down_proj comes first
  CHECK(asked[0].out == config.hidden);
  CHECK(asked[0].in == config.ffn);
  i64 with_scratch = 0;
  for (size_t s = 0; s < program.steps.size(); ++s) {
    if (program.steps[s].op != Op::linear) continue;
    CHECK(plan.scratch_bytes(s) == (plan.steps[s].grad_in[0] ? aligned(1000) : 0));
    if (plan.scratch[s] < 0) continue;
    const Placement& p = plan.placements[static_cast<size_t>(plan.scratch[s])];
    CHECK(p.first == p.last);
    CHECK(p.name == "factors of " + program.steps[s].name);
    ++with_scratch;
  }
  CHECK(with_scratch == 4);
}

TEST_CASE("plan: an untuned block has no backward at all") {
  const Program program = llama_block(tiny_config(false), 0);
  PlanOptions options = tuning(program, 1, 4, DType::f32);
  options.trainable.assign(program.weights.size(), false);
  for (const StepPlan& step : make_plan(program, options).steps) CHECK(!step.backward);
}

TEST_CASE("block: hand-derived backward equals the derivative on dual numbers") {
  for (const bool biases : {false, true}) {
    const Program program = llama_block(tiny_config(biases), 3);
    dot_test(program, 1, 9, false);
    dot_test(program, 2, 5, true);
  }
}

TEST_CASE("explain: the table of a block") {
  const Program program = llama_block(tiny_config(false), 0);
  const std::string text = explain(program, make_plan(program, tuning(program, 2, 5, DType::f32)));
  CHECK(text.find("block model.layers.0.  13 steps, 2 sequences of 5 tokens") == 0);
  CHECK(text.find("none: nothing upstream is tuned") != std::string::npos);
  CHECK(text.find("dq =, dk =, dv =") != std::string::npos);
  CHECK(text.find("(dx skipped)") != std::string::npos);
  CHECK(text.find("  dx =, dresidual =, dw =") != std::string::npos);
}
