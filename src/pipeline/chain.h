// The hidden states of all calibration samples on their way through the model, twice: as the original model computes them (float)
// and as the model does whose earlier blocks are already quantized. A block is tuned on the second to give the first's output.
#pragma once
#include <functional>
#include <vector>

#include "model/stage.h"

namespace signround {

class Chain {
 public:
  // Two caches [samples*tokens, hidden], one for each chain; each block runs over them in place. Where a chain lies is told by
  // its allocator: the backend or its host_memory().
  Chain(Backend& backend, Allocator& quantized, Allocator& original, i64 samples, i64 tokens, i64 hidden);
  static i64 cache_bytes(const Backend& backend, i64 samples, i64 tokens, i64 hidden);

  // Both chains start with the embeddings of the samples, `stage` being the family's embedding program.
  void embed(const Stage& stage, const std::vector<std::vector<i32>>& samples);
  // The original block moves the float chain on: what it holds then is what the quantized block shall give.
  // ran() is called after each batch.
  void run_original(const Executor& block, const std::function<void()>& ran) const { run(block, float_, true, ran); }
  // The quantized block moves the quantized chain on.
  void run_quantized(const Executor& block) const { run(block, quantized_, false, [] {}); }

  Tensor quantized_input() const { return quantized_; }
  Tensor target() const { return float_; }

 private:
  void run(const Executor& block, Tensor states, bool original, const std::function<void()>& ran) const;

  Backend& backend_;
  Buffer quantized_memory_, float_memory_;
  Tensor quantized_, float_;
};

}  // namespace signround
