// One block on the backend: its stage, what is learned about it, the loop's state, and scratch for its integers, all in one
// arena.
#pragma once
#include "model/quantized.h"
#include "model/stage.h"
#include "pipeline/chain.h"
#include "quant/signround.h"

namespace signround {

class BlockWork {
 public:
  // The best parameters so far lie in `snapshots`, the rest in `arena`. Measuring arenas tell what they take. tune.steps == 0:
  // round to nearest, nothing is run.
  BlockWork(Arena& arena, Arena& snapshots, Backend& backend, const WeightSource& source, const Program& program,
            const std::vector<QuantSpec>& specs, const TuneOptions& tune);

  // Reads the block's weights; NaN or infinity is refused.
  void load() const { stage_.load(true); }
  // v = 0, lo = hi = 1.
  void round_to_nearest() const { quant_.start(backend_); }
  // Moves the original chain on, and notes what the linears read on the way, where a search wants to know it.
  void run_original(const Chain& chain) const;
  TuneResult tune(Tensor inputs, Tensor targets, Sampler& sampler, const std::function<void(i64)>& issued) const;
  // wq of the learned parameters, for runs of executor().
  void quantize() const { quant_.quantize(backend_, executor()); }
  // The integers of every quantized layer, one after another.
  void each_layer(const std::function<void(QuantizedLinear)>& take) const;

  const Executor& executor() const { return stage_.executor(); }
  const Plan& plan() const { return stage_.plan(); }
  const BlockQuant& parameters() const { return quant_; }
  const TuningState& state() const { return state_; }
  double flops_per_step() const;  // of one tuning step

 private:
  // Of the layer `name`, that is `rows` rows of the weight from `first` on.
  QuantizedLinear codes_of(size_t weight, const std::string& name, i64 first, i64 rows) const;

  Backend& backend_;
  TuneOptions tune_;
  Stage stage_;
  BlockQuant quant_;
  TuningState state_;
  Tensor ahead_;                 // room for targets that come ahead
  GridTensors grid_;             // as large as the largest layer needs; in the activations' place if it fits there
};

}  // namespace signround
