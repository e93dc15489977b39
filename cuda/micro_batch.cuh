// Which samples the current micro-batch has: what gathering its inputs and finding its loss both ask. State: see TuningState.
#pragma once
#include "cuda/common.cuh"
#include "ops/ops.h"

namespace signround::cuda {

struct MicroBatch {
  const i32* order;  // [orders] of `samples`; null: they take turns
  i64 orders, samples, batch;
  const Counters* now;

  MicroBatch(const TuningState& state, i64 batch, i64 samples, bool in_turn = false)
      : order(in_turn ? nullptr : state.order.as<i32>()), orders(state.order.size()), samples(samples), batch(batch),
        now(state.now()) {}

  // The sample in place b; -1 if the order is wrong.
  __device__ i64 sample(i64 b, Faults* faults) const {
    const i64 at = now->micro * batch + b;
    if (order == nullptr) return at % samples;
    const i32 sample = at >= 0 && at < orders ? order[at] : -1;
    if (sample >= 0 && sample < samples) return sample;
    report(faults, Fault::sample, at, sample);
    return -1;
  }
};

}  // namespace signround::cuda
