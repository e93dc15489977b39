// Everything tedious about running a Program, derived once: which gradients exist, where they are set and where added to, what
// the forward must keep for the backward, and where every tensor lies in one arena.
#pragma once
#include <functional>

#include "model/program.h"

namespace signround {

// A tensor's place: bytes at offset, from moment `first` to moment `last`. Two that meet in time never meet in space.
struct Placement {
  std::string name;
  i64 bytes = 0;
  int first = 0, last = 0;
  i64 offset = 0;
};

struct StepPlan {
  bool backward = false;             // some gradient flows through it
  std::array<bool, 3> grad_in = {};  // d(in) is wanted
  std::array<Acc, 3> acc = {};       // and is set or added to
  std::array<bool, 3> handed_on = {};  // or is d(out) itself, in its place: the gradient of a sum is that of its terms
  bool grad_weight = false;          // dw is wanted
};

struct SlotPlan {
  bool needs_grad = false;
  bool kept = false;          // lives into the backward
  int value = -1, grad = -1;  // Plan::placements
};

struct PlanOptions {
  i64 batch = 1, tokens = 1;
  bool tuning = false;              // with backward; else forward only
  std::vector<bool> trainable;      // by weight: tuned, hence a quantized copy wq and a gradient dw. Empty: none.
  std::vector<DType> weight_types;  // by weight: element type of wq
  bool keep_weight_grads = false;   // dw outlives its step: gradients are summed over micro-batches, or used all at once
  DType activation = DType::f32;
  DType weight_grad = DType::f32;
  // Bytes that the backward of a linear wants beside its tensors. Empty: none.
  std::function<i64(const Backend::LinearShape&)> linear_scratch = {};
};

// Moments: 0 input arrives; 1..S forward of step s-1; S+1 loss; S+2..2S+1 backward of steps S-1..0.
struct Plan {
  PlanOptions options;
  std::vector<StepPlan> steps;       // as Program::steps
  std::vector<SlotPlan> slots;       // as Program::slots
  std::vector<int> wq, dw, scratch;  // placements: by weight, by weight, by step (attention's delta, a linear's factors)
  std::vector<Placement> placements;
  i64 bytes = 0;  // of the arena

  i64 rows() const { return options.batch * options.tokens; }
  i64 rows_of(const Slot& s) const { return s.per_token > 0 ? rows() * s.per_token : 1; }
  DType type_of(const Slot& s) const;
  i64 scratch_bytes(size_t step) const {
    return scratch[step] < 0 ? 0 : placements[static_cast<size_t>(scratch[step])].bytes;
  }
};

Plan make_plan(const Program& program, const PlanOptions& options);

// Floating-point operations of a step, a multiply-add counted as two; attention by its visible scores.
double flops_forward(const Program& program, const Step& step, i64 batch, i64 tokens);
// Of the part of the backward that the plan runs.
double flops_backward(const Program& program, const Plan& plan, size_t step);
// Bytes that a step has to read and write, each tensor once; weights apart.
double bytes_forward(const Program& program, const Plan& plan, size_t step);
double bytes_backward(const Program& program, const Plan& plan, size_t step);

}  // namespace signround
