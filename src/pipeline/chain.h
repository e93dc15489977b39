// The hidden states of all calibration samples on their way through the model, twice: as the original model computes them (float)
// and as the model does whose earlier blocks are already quantized. A block is tuned on the second to give the first's output.
#pragma once
#include <vector>

#include "model/stage.h"

namespace signround {

class Chain {
 public:
  // Three caches [samples*tokens, hidden] on the backend.
  Chain(Backend& backend, i64 samples, i64 tokens, i64 hidden);
  static i64 bytes(const Backend& backend, i64 samples, i64 tokens, i64 hidden);

  // Both chains start with the embeddings of the samples, `stage` being the family's embedding program.
  void embed(const Stage& stage, const std::vector<std::vector<i32>>& samples);
  // target = the original block's output for the float chain's input.
  void run_original(const Executor& block);
  // Afterwards the float chain is the target, and the quantized chain the quantized block's output for its own input.
  void advance(const Executor& block);

  Tensor quantized_input() const { return same_ ? float_ : quantized_; }
  Tensor target() const { return target_; }

 private:
  void run(const Executor& block, Tensor from, Tensor to, bool original) const;
  template <class F>
  void each_batch(i64 rows, F f) const;

  Backend& backend_;
  Buffer memory_[3];
  Tensor float_, quantized_, target_;
  bool same_ = true;  // before the first block both chains are one, and quantized_ is free
};

}  // namespace signround
