#include "quant/signround.h"

#include <limits>

namespace signround {

BlockQuant BlockQuant::place(Arena& arena, Arena& snapshots, const Program& program, const std::vector<Tensor>& weights,
                             const std::vector<QuantSpec>& specs, bool tuned, int search_bits) {
  BlockQuant quant;
  quant.specs = specs;
  quant.tensors.resize(specs.size());
  quant.costs.resize(specs.size());
  const i64 before = arena.used();
  quant.each([&](size_t i) {
    const WeightRef& ref = program.weights[i];
    QdqTensors& q = quant.tensors[i];
    q.w = weights[i];
    q.v = arena.take(DType::f32, {ref.rows, ref.cols});
    for (Tensor* t : {&q.lo, &q.hi}) *t = arena.take(DType::f32, {ref.rows, specs[i].groups(ref.cols)});
    if (!quant.learned) quant.learned.data = q.v.data;
  });
  quant.learned = view(quant.learned.data, DType::u8, arena.used() - before);
  quant.each([&](size_t i) {
    const WeightRef& ref = program.weights[i];
    for (Tensor* t : {&quant.tensors[i].wmin, &quant.tensors[i].wmax})
      *t = arena.take(DType::f32, {ref.rows, specs[i].groups(ref.cols)});
    const bool searched = tuned && specs[i].bits <= search_bits && !specs[i].two_levels();
    if (searched) quant.costs[i] = arena.take(DType::f32, {ref.cols});
  });
  if (tuned) quant.best = snapshots.take(DType::u8, {quant.learned.size()});
  return quant;
}

void BlockQuant::forget_inputs(Backend& backend) const {
  for (Tensor cost : costs)
    if (cost) backend.fill(cost, 0);
}

void BlockQuant::add_inputs(Backend& backend, const Executor& executor) const {
  executor.each_input([&](size_t weight, Tensor x) {
    if (costs[weight]) backend.column_squares(costs[weight], x);
  });
}

void BlockQuant::start(Backend& backend) const {
  each([&](size_t i) {
    const QdqTensors& q = tensors[i];
    backend.group_range(q.wmin, q.wmax, q.w, specs[i]);
    backend.fill(q.v, 0);
    backend.fill(q.lo, 1);
    backend.fill(q.hi, 1);
    if (costs[i]) backend.search_factors(q, costs[i], specs[i]);
  });
}

QdqStep BlockQuant::step_of(size_t weight, const Executor& executor) const {
  return {executor.wq(weight), tensors[weight], executor.dw(weight), specs[weight], most(weight)};
}

std::vector<QdqStep> BlockQuant::steps(const Executor& executor) const {
  std::vector<QdqStep> all;
  each([&](size_t w) { all.push_back(step_of(w, executor)); });
  return all;
}

void BlockQuant::take_best(Backend& backend) const { backend.copy(learned, best); }

void BlockQuant::quantize(Backend& backend, const Executor& executor) const {
  each([&](size_t i) { backend.qdq(executor.wq(i), tensors[i], specs[i]); });
}

TuningState place_state(Arena& arena, const TuneOptions& options) {
  TuningState s;
  s.order = arena.take(DType::i32, {options.steps * options.accumulate * options.batch});
  for (Tensor* t : {&s.lr, &s.minmax_lr, &s.loss}) *t = arena.take(DType::f32, {options.steps});
  s.best = arena.take(DType::f32, {1});
  s.counters = arena.take(DType::i32, {4});
  s.accumulate = options.accumulate;
  return s;
}

namespace {

// Returns the order of the samples.
std::vector<i32> start_state(Backend& backend, const TuningState& state, Sampler& sampler, const TuneOptions& options) {
  std::vector<i32> order;
  std::vector<float> lr, minmax_lr;
  for (i64 t = 0; t < options.steps; ++t) {
    sampler.next(options.batch * options.accumulate, order);
    const double left = 1 - static_cast<double>(t) / static_cast<double>(options.steps);
    lr.push_back(static_cast<float>(options.lr * left));
    minmax_lr.push_back(static_cast<float>(options.minmax_lr * left));
  }
  const Counters zeros{};
  backend.upload(state.order, order.data());
  backend.upload(state.lr, lr.data());
  backend.upload(state.minmax_lr, minmax_lr.data());
  backend.upload(state.counters, &zeros);
  backend.fill(state.loss, 0);
  backend.fill(state.best, std::numeric_limits<float>::infinity());
  return order;
}

}  // namespace

TuneResult tune_block(Backend& backend, const Executor& executor, const BlockQuant& quant, const TuningState& state,
                      Tensor inputs, Tensor targets, Tensor ahead, Sampler& sampler, const TuneOptions& options,
                      const std::function<void(i64)>& issued) {
  quant.start(backend);
  quant.quantize(backend, executor);
  executor.forget_counts();
  const std::vector<i32> order = start_state(backend, state, sampler, options);

  // A step's targets come while the one before it runs, over those of the one before that.
  const i64 samples = options.accumulate * options.batch, tokens = options.tokens;
  check(!ahead || ahead.rows() == 2 * samples * tokens, ErrorKind::bug, "room for the targets of ", ahead.rows(), " tokens");
  const auto fetch_targets = [&](i64 step) {
    for (i64 i = step * samples; i < (step + 1) * samples && step < options.steps; ++i) {
      const i64 sample = order[static_cast<size_t>(i)];
      backend.copy(ahead.slice(i % (2 * samples) * tokens, tokens), targets.slice(sample * tokens, tokens));
    }
  };
  const auto meet_targets = [&](i64 step) {  // before the step is issued
    if (!ahead) return;
    backend.rejoin();
    backend.aside([&] { fetch_targets(step + 1); });
  };
  if (ahead) backend.aside([&] { fetch_targets(0); });
  meet_targets(0);

  const auto forward = [&] {
    backend.gather(executor.input(), inputs, options.tokens, state);
    executor.forward();
    backend.mse(executor.output_grad(), executor.output(), {ahead ? ahead : targets, static_cast<bool>(ahead)}, options.tokens,
                options.skip_last, state);
  };
  // Weights step all at once if their gradients are kept; else one by one, each before its gradient's place is taken.
  const bool at_once = executor.keeps_weight_grads();
  check(at_once || options.accumulate == 1, ErrorKind::bug, "gradients are summed, but the plan does not keep them");
  const std::vector<QdqStep> weights = quant.steps(executor);
  const auto on_dw = [&](size_t w, Tensor) {
    if (at_once) return;
    const QdqStep one = quant.step_of(w, executor);
    backend.qdq_step({&one, 1}, state);
  };
  const auto step = [&](bool learn) {
    for (i64 micro = 0; micro < options.accumulate; ++micro) {
      forward();
      const bool last = micro + 1 == options.accumulate;
      if (last) backend.keep_if_best(quant.best, quant.learned, state);  // what gave this step's loss, before it changes
      if (learn) executor.backward(micro == 0 ? Acc::set : Acc::add, on_dw);
    }
    if (learn && at_once) backend.qdq_step(weights, state);
  };
  // What the last step would learn is never evaluated, so it only measures.
  backend.repeat(
      options.steps - 1, [&] { step(true); },
      [&](i64 n) {
        meet_targets(n);
        issued(n);
      });
  backend.repeat(
      1, [&] { step(false); }, [&](i64) { issued(options.steps); });
  quant.take_best(backend);

  TuneResult result;
  result.losses.resize(static_cast<size_t>(options.steps));
  Counters end;
  backend.download(result.losses.data(), state.loss);
  backend.download(&end, state.counters);
  backend.download(&result.best_loss, state.best);
  result.best_step = end.best_step;
  result.idle_experts = executor.idle_experts();
  return result;
}

}  // namespace signround
