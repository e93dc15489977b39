#include "pipeline/chain.h"

#include <algorithm>

namespace signround {

i64 Chain::cache_bytes(const Backend& backend, i64 samples, i64 tokens, i64 hidden) {
  return aligned(samples * tokens * hidden * bytes_of(backend.activation_type()));
}

Chain::Chain(Backend& backend, Allocator& quantized, Allocator& original, i64 samples, i64 tokens, i64 hidden)
    : backend_(backend) {
  const i64 bytes = cache_bytes(backend, samples, tokens, hidden);
  quantized_memory_ = Buffer(quantized, bytes, "hidden states of the calibration samples");
  float_memory_ = Buffer(original, bytes, "hidden states of the calibration samples");
  quantized_ = view(quantized_memory_.data(), backend.activation_type(), samples * tokens, hidden);
  float_ = view(float_memory_.data(), backend.activation_type(), samples * tokens, hidden);
}

namespace {

// f(first row, rows already seen): batches of `rows`. The last one starts early enough to be full; its first rows are then only
// filling: their results were taken already.
template <class F>
void each_batch(i64 all, i64 rows, F f) {
  check(rows <= all, ErrorKind::bug, "a batch of ", rows, " rows from ", all);
  for (i64 first = 0; first < all; first += rows) {
    const i64 start = std::min(first, all - rows);
    f(start, first - start);
  }
}

}  // namespace

void Chain::embed(const Stage& stage, const std::vector<std::vector<i32>>& samples) {
  std::vector<i32> ids;
  for (const std::vector<i32>& sample : samples) ids.insert(ids.end(), sample.begin(), sample.end());
  const Executor& executor = stage.executor();
  const i64 rows = stage.plan().rows();
  each_batch(float_.rows(), rows, [&](i64 first, i64) {
    backend_.upload(executor.input(), ids.data() + first);
    executor.forward();
    backend_.copy(float_.slice(first, rows), executor.output());
  });
  backend_.copy(quantized_, float_);
}

void Chain::run(const Executor& block, Tensor states, bool original, const std::function<void()>& ran) const {
  const i64 rows = block.input().rows();
  each_batch(states.rows(), rows, [&](i64 first, i64 seen) {
    backend_.copy(block.input(), states.slice(first, rows));
    block.forward(original);
    backend_.copy(states.slice(first + seen, rows - seen), block.output().slice(seen, rows - seen));
    ran();
  });
}

}  // namespace signround
