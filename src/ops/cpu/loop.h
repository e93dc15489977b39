// The tuning loop's own steps: what a device can do without asking the host. State: see TuningState.
#pragma once
#include "base/error.h"
#include "ops/cpu/norm.h"
#include "ops/ops.h"

namespace signround::SIGNROUND_ISA {

// to[i] = from[i], converted.
template <class To, class From>
void convert(To* to, const From* from, i64 n) {
  parallel_ranges(n, kTaskElements, [&](i64 first, i64 last) {
    cast_all(to + first, from + first, last - first);
  });
}

// The entry of a [steps] array that belongs to the current step.
template <class T>
T& at_step(Tensor array, const TuningState& state) {
  const i64 step = state.now()->step;
  check(step >= 0 && step < array.size(), ErrorKind::bug, "tuning step ", step, " of ", array.size());
  return array.as<T>()[step];
}

// order[micro * B] .. of the current micro-batch: each is one of so many samples.
inline std::span<const i32> samples_of_micro(i64 batch, i64 samples, const TuningState& state) {
  const i64 first = state.now()->micro * batch;
  check(first >= 0 && first + batch <= state.order.size(), ErrorKind::bug, "micro-batch past the end of the order of samples");
  const std::span<const i32> order(state.order.as<i32>() + first, static_cast<size_t>(batch));
  for (const i32 sample : order)
    check(sample >= 0 && sample < samples, ErrorKind::bug, "sample ", sample, " is not in the cache");
  return order;
}

// y[b] = cache[order[micro * B + b]], a sample being `tokens` rows of `cols`.
template <class T, class C>
void gather(T* y, const C* cache, i64 rows, i64 cols, i64 tokens, i64 cached_rows, const TuningState& state) {
  const i64 sample = tokens * cols;
  for (const i32 from : samples_of_micro(rows / tokens, cached_rows / tokens, state)) {
    convert(y, cache + from * sample, sample);
    y += sample;
  }
}

// The current micro-batch's targets, row by row.
template <class T>
class TargetRows {
 public:
  TargetRows(const Targets& targets, i64 rows, i64 tokens, const TuningState& state)
      : first_(targets.states.as<T>()), cols_(targets.states.cols()), tokens_(tokens) {
    if (targets.in_turn) first_ += state.now()->micro % (targets.states.rows() / rows) * rows * cols_;
    else order_ = samples_of_micro(rows / tokens, targets.states.rows() / tokens, state);
  }
  const T* operator[](i64 row) const {
    const i64 from = order_.empty() ? row : order_[static_cast<size_t>(row / tokens_)] * tokens_ + row % tokens_;
    return first_ + from * cols_;
  }

 private:
  const T* first_;
  i64 cols_, tokens_;
  std::span<const i32> order_;
};

// Of the current micro-batch, which is over then. The first of equal losses stays the best; NaN never is.
template <class T>
void add_loss(T loss, const TuningState& state) {
  Counters& now = *state.now();
  now.step = static_cast<i32>(now.micro / state.accumulate);
  T &sum = at_step<T>(state.loss, state), &best = *state.best.as<T>();
  sum += loss;
  ++now.micro;
  now.is_best = now.micro % state.accumulate == 0 && sum < best;
  if (!now.is_best) return;
  best = sum;
  now.best_step = now.step;
}

}  // namespace signround::SIGNROUND_ISA
