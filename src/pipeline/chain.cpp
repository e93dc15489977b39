#include "pipeline/chain.h"

#include <algorithm>

namespace signround {

i64 Chain::bytes(const Backend& backend, i64 samples, i64 tokens, i64 hidden) {
  return 3 * aligned(samples * tokens * hidden * bytes_of(backend.activation_type()));
}

Chain::Chain(Backend& backend, i64 samples, i64 tokens, i64 hidden) : backend_(backend) {
  const DType type = backend.activation_type();
  Tensor* caches[] = {&float_, &target_, &quantized_};
  for (int i = 0; i < 3; ++i) {
    memory_[i] = Buffer(backend, aligned(samples * tokens * hidden * bytes_of(type)), "hidden states of the calibration samples");
    *caches[i] = view(memory_[i].data(), type, samples * tokens, hidden);
  }
}

// f(first row) for batches of `rows`. The last batch may start early enough to be full: rows seen twice give the same result
// twice.
template <class F>
void Chain::each_batch(i64 rows, F f) const {
  const i64 all = float_.rows();
  check(rows <= all, ErrorKind::bug, "a batch of ", rows, " rows from ", all);
  for (i64 first = 0; first < all; first += rows) f(std::min(first, all - rows));
}

void Chain::embed(const Stage& stage, const std::vector<std::vector<i32>>& samples) {
  std::vector<i32> ids;
  for (const std::vector<i32>& sample : samples) ids.insert(ids.end(), sample.begin(), sample.end());
  const Executor& executor = stage.executor();
  const i64 rows = stage.plan().rows();
  each_batch(rows, [&](i64 first) {
    backend_.upload(executor.input(), ids.data() + first);
    executor.forward();
    backend_.copy(float_.slice(first, rows), executor.output());
  });
  same_ = true;
}

void Chain::run(const Executor& block, Tensor from, Tensor to, bool original) const {
  const i64 rows = block.input().rows();
  each_batch(rows, [&](i64 first) {
    backend_.copy(block.input(), from.slice(first, rows));
    block.forward(original);
    backend_.copy(to.slice(first, rows), block.output());
  });
}

void Chain::run_original(const Executor& block) { run(block, float_, target_, true); }

void Chain::advance(const Executor& block) {
  // The old float input is free now: it receives the quantized output, unless it is that output's own input.
  Tensor& free = same_ ? quantized_ : float_;
  run(block, quantized_input(), free, false);
  if (!same_) std::swap(float_, quantized_);
  std::swap(float_, target_);
  same_ = false;
}

}  // namespace signround
