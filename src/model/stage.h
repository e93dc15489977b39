// A Program with everything it needs to run: its weights and tables on the backend, its plan, its executor.
#pragma once
#include <memory>

#include "model/executor.h"
#include "model/model.h"

namespace signround {

class Stage {
 public:
  // Places weights, rope tables and the plan's arena in `arena` (a measuring one tells what that takes: no executor then).
  // options.trainable and weight_types are filled in from `specs` (by weight; empty: nothing is tuned).
  Stage(Arena& arena, Backend& backend, const WeightSource& source, Program program, PlanOptions options,
        const std::vector<QuantSpec>& specs = {});
  Stage(Stage&&) = delete;

  // Brings the weights to the backend and computes the rope tables.
  void load(bool refuse_nonfinite) const;
  const Executor& executor() const { return *executor_; }
  const Program& program() const { return program_; }
  const Plan& plan() const { return plan_; }
  const std::vector<Tensor>& weights() const { return weights_; }
  // Memory of activations and gradients: anyone's between runs. Its bytes are plan().bytes.
  void* scratch() const { return scratch_; }

 private:
  Backend& backend_;
  const WeightSource& source_;
  Program program_;
  Plan plan_;
  std::vector<Tensor> weights_, rope_tables_;
  void* scratch_ = nullptr;
  std::unique_ptr<Executor> executor_;
};

}  // namespace signround
