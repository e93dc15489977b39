// Runs a planned Program on a backend: two loops over the list.
#pragma once
#include <functional>

#include "model/plan.h"

namespace signround {

class Executor {
 public:
  // arena: plan.bytes on the backend. weights: as Program::weights, on the backend; rope_tables: as Program::rope_tables.
  // All of them, program and plan must outlive the executor.
  Executor(Backend& backend, const Program& program, const Plan& plan, void* arena, std::vector<Tensor> weights,
           std::vector<Tensor> rope_tables);

  Tensor input() const { return value(program_.input); }
  Tensor output() const { return value(program_.output); }
  Tensor output_grad() const { return grad(program_.output); }  // to be filled before backward()
  Tensor wq(size_t weight) const { return wq_[weight]; }        // empty if the weight is not tuned
  Tensor dw(size_t weight) const { return dw_[weight]; }
  bool keeps_weight_grads() const { return plan_.options.keep_weight_grads; }  // all of them, until the next backward

  // Experts that no token has chosen since this was made, or since forget_counts(): "model.layers.0.mlp.experts.7".
  std::vector<std::string> idle_experts() const;
  void forget_counts() const;

  // Multiplies by wq where a weight is tuned (the caller fills it) unless `original`.
  void forward(bool original = false) const;
  // dw_acc: whether weight gradients are set or added to. on_dw is called as soon as a weight's gradient is complete and nothing
  // needs its wq any more; dw may be overwritten by a later step unless the plan keeps weight gradients.
  void backward(Acc dw_acc, const std::function<void(size_t weight, Tensor dw)>& on_dw) const;
  // f(weight, x) for the trainable linears: the x [N,I] of the last forward, that the plan keeps for their gradients.
  void each_input(const std::function<void(size_t weight, Tensor x)>& f) const;
  // One step alone.
  void forward_step(size_t step, bool original = false) const;
  void backward_step(size_t step, Acc dw_acc) const;

 private:
  Tensor value(int slot) const { return slot < 0 ? Tensor{} : values_[static_cast<size_t>(slot)]; }
  Tensor grad(int slot) const { return slot < 0 ? Tensor{} : grads_[static_cast<size_t>(slot)]; }
  Tensor weight(int index, bool original) const;

  Backend& backend_;
  const Program& program_;
  const Plan& plan_;
  std::vector<Tensor> weights_, rope_tables_, values_, grads_, wq_, dw_, scratch_;
};

}  // namespace signround
