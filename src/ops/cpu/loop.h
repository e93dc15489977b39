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

// y[b] = cache[order[micro * B + b]], a sample being `tokens` rows of `cols`.
template <class T, class C>
void gather(T* y, const C* cache, i64 rows, i64 cols, i64 tokens, i64 cached_rows, const TuningState& state) {
  const i64 batch = rows / tokens, first = state.now()->micro * batch, sample = tokens * cols;
  check(first >= 0 && first + batch <= state.order.size(), ErrorKind::bug, "micro-batch past the end of the order of samples");
  const i32* order = state.order.as<i32>() + first;
  for (i64 b = 0; b < batch; ++b) {
    check(order[b] >= 0 && (order[b] + 1) * tokens <= cached_rows, ErrorKind::bug, "sample ", order[b], " is not in the cache");
    convert(y + b * sample, cache + order[b] * sample, sample);
  }
}

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
