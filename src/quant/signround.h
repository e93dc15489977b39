// SignRound on one block (Cheng et al., arXiv 2309.05516): signed gradient descent learns for every weight an offset v to its
// rounding and for every group two factors lo, hi of its range, so that the quantized block's output comes close to the
// original's.
#pragma once
#include <functional>

#include "model/executor.h"
#include "quant/sampler.h"

namespace signround {

struct TuneOptions {
  i64 steps = 200, batch = 8, accumulate = 1, tokens = 2048;
  double lr = 0.005, minmax_lr = 0.005;  // of the first step; both fall linearly to 0
  int search_bits = 0;                   // weights of so many bits or fewer: groups start from the range with the least error
  bool targets_ahead = false;            // there is room for two steps' targets: each is copied while the step before it runs
  bool skip_last = true;                 // the last position of a sample counts neither in the loss nor in its gradient: what it
                                         // predicts is not in the sample (as in the reference since July 2026)
};

struct TuneResult {
  std::vector<float> losses;  // mean squared error of each step
  i64 best_step = 0;
  float best_loss = 0;
  std::vector<std::string> idle_experts;  // that met no token: nothing was learned, they are rounded to nearest
};

// The parameters of one block's quantized linears, on the backend; by weight of the program, empty where a weight is not
// quantized.
struct BlockQuant {
  std::vector<QuantSpec> specs;
  std::vector<QdqTensors> tensors;  // what is being learned
  std::vector<Tensor> costs;        // [I] f32: of errors, in the search for where lo and hi start; empty: they start at 1
  Tensor learned;                   // v, lo, hi of all of them, as bytes in one piece
  Tensor best;                      // learned of the best step so far; empty when `steps` is 0

  // Takes the tensors out of the arena and `best` out of `snapshots`; w is bound to `weights`. Measuring arenas tell what they
  // need.
  static BlockQuant place(Arena& arena, Arena& snapshots, const Program& program, const std::vector<Tensor>& weights,
                          const std::vector<QuantSpec>& specs, bool tuned, int search_bits = 0);
  // costs = 0; and += the squares of what the linears have read in the executor's last forward.
  void forget_inputs(Backend& backend) const;
  void add_inputs(Backend& backend, const Executor& executor) const;
  // Ranges of the groups, v = 0, lo = hi = 1: round to nearest; or where the search puts lo and hi.
  void start(Backend& backend) const;
  // What lo and hi may grow to.
  float most(size_t weight) const { return costs[weight] ? 2.0f : 1.0f; }
  // What a step does to the weight once the executor has its gradient; and to all of them.
  QdqStep step_of(size_t weight, const Executor& executor) const;
  std::vector<QdqStep> steps(const Executor& executor) const;
  // v, lo, hi = those of the best step.
  void take_best(Backend& backend) const;
  // wq of every quantized weight, into the executor's.
  void quantize(Backend& backend, const Executor& executor) const;

  template <class F>
  void each(F f) const {  // f(weight index) for the quantized ones
    for (size_t w = 0; w < specs.size(); ++w)
      if (specs[w].quantized()) f(w);
  }
};

// What a run of the loop keeps on the device, and its size.
TuningState place_state(Arena& arena, const TuneOptions& options);

// Tunes one block: `inputs` and `targets` [samples*T, D] are on the backend, the executor's plan is a tuning one for batch and
// tokens that keeps the weights' gradients if options.accumulate > 1; ahead [2*accumulate*B*T, D] is room for targets that come
// ahead, or empty. On return quant holds the best parameters. issued(n): n steps were issued; may throw to stop.
TuneResult tune_block(Backend& backend, const Executor& executor, const BlockQuant& quant, const TuningState& state,
                      Tensor inputs, Tensor targets, Tensor ahead, Sampler& sampler, const TuneOptions& options,
                      const std::function<void(i64)>& issued);

}  // namespace signround
