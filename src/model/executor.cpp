#include "model/executor.h"

namespace signround {

Executor::Executor(Backend& backend, const Program& program, const Plan& plan, void* arena, std::vector<Tensor> weights,
                   std::vector<Tensor> rope_tables)
    : backend_(backend), program_(program), plan_(plan), weights_(std::move(weights)), rope_tables_(std::move(rope_tables)) {
  const auto at = [&](int placement, DType dtype, i64 rows, i64 cols) {
    if (placement < 0) return Tensor{};
    return view(static_cast<char*>(arena) + plan.placements[static_cast<size_t>(placement)].offset, dtype, rows, cols);
  };
  for (size_t i = 0; i < program.slots.size(); ++i) {
    const Slot& slot = program.slots[i];
    values_.push_back(at(plan.slots[i].value, plan.type_of(slot), plan.rows_of(slot), slot.cols));
    grads_.push_back(at(plan.slots[i].grad, plan.type_of(slot), plan.rows_of(slot), slot.cols));
  }
  for (size_t i = 0; i < program.weights.size(); ++i) {
    const WeightRef& ref = program.weights[i];
    wq_.push_back(at(plan.wq[i], plan.options.weight_types[i], ref.rows, ref.cols));
    dw_.push_back(at(plan.dw[i], plan.options.weight_grad, ref.rows, ref.cols));
  }
  for (size_t s = 0; s < program.steps.size(); ++s) {
    const Step& step = program.steps[s];
    const DType statistic = plan.type_of({SlotKind::statistic, 1, {}});
    if (step.op == Op::attention) scratch_.push_back(at(plan.scratch[s], statistic, plan.rows(), step.args.attention.heads));
    else scratch_.push_back(at(plan.scratch[s], DType::u8, 1, plan.scratch_bytes(s)));
  }
  forget_counts();
}

std::vector<std::string> Executor::idle_experts() const {
  std::vector<std::string> idle;
  for (size_t i = 0; i < values_.size(); ++i) {
    if (program_.slots[i].kind != SlotKind::counts) continue;
    std::vector<i32> counts(static_cast<size_t>(values_[i].size()));
    backend_.download(counts.data(), values_[i]);
    for (size_t e = 0; e < counts.size(); ++e)
      if (counts[e] == 0) idle.push_back(cat(program_.prefix, program_.slots[i].name, ".", e));
  }
  return idle;
}

void Executor::forget_counts() const {
  for (size_t i = 0; i < values_.size(); ++i)
    if (program_.slots[i].kind == SlotKind::counts) backend_.fill(values_[i], 0);
}

Tensor Executor::weight(int index, bool original) const {
  if (index < 0) return {};
  const size_t i = static_cast<size_t>(index);
  return wq_[i] && !original ? wq_[i] : weights_[i];
}

void Executor::forward(bool original) const {
  for (size_t s = 0; s < program_.steps.size(); ++s) within(program_.steps[s].name, [&] { forward_step(s, original); });
}

void Executor::backward(Acc dw_acc, const std::function<void(size_t weight, Tensor dw)>& on_dw) const {
  for (size_t s = program_.steps.size(); s-- > 0;) {
    if (!plan_.steps[s].backward) continue;
    within(program_.steps[s].name, [&] { backward_step(s, dw_acc); });
    const size_t w = static_cast<size_t>(program_.steps[s].weight);
    if (plan_.steps[s].grad_weight) on_dw(w, dw_[w]);
  }
}

void Executor::each_input(const std::function<void(size_t weight, Tensor x)>& f) const {
  for (size_t s = 0; s < program_.steps.size(); ++s)
    if (plan_.steps[s].grad_weight) f(static_cast<size_t>(program_.steps[s].weight), value(program_.steps[s].in[0]));
}

namespace {

RopeShape with_rows(RopeShape shape, const Plan& plan) {
  shape.tokens = plan.options.tokens;
  return shape;
}

AttentionShape with_rows(AttentionShape shape, const Plan& plan) {
  shape.batch = plan.options.batch;
  shape.tokens = plan.options.tokens;
  return shape;
}

}  // namespace

void Executor::forward_step(size_t index, bool original) const {
  const Step& s = program_.steps[index];
  const OpArgs& a = s.args;
  const Tensor x = value(s.in[0]), x1 = value(s.in[1]), x2 = value(s.in[2]);
  const Tensor y = value(s.out[0]), stat = value(s.out[1]);
  const Tensor w = weight(s.weight, original), bias = weight(s.bias, original);
  switch (s.op) {
    case Op::embed: return backend_.embed(y, x, w, a.scale);
    case Op::positions: return backend_.positions(y, plan_.options.tokens, a.offset);
    case Op::rms: return backend_.rms(y, stat, x, w, a.eps, a.plus);
    case Op::layer_norm: return backend_.layer_norm(y, stat, x, w, bias, a.eps);
    case Op::linear: return backend_.linear(y, x, w, bias, x1);
    case Op::rope: return backend_.rope(y, x, rope_tables_[static_cast<size_t>(a.table)], with_rows(a.rope, plan_));
    case Op::attention: return backend_.attention(y, stat, x, x1, x2, with_rows(a.attention, plan_));
    case Op::glu: return backend_.glu(y, x, x1, a.activation);
    case Op::act: return backend_.act(y, x, a.activation);
    case Op::slice: return backend_.slice(y, x, a.columns);
    case Op::add: return backend_.add(y, x, x1);
    case Op::softcap: return backend_.softcap(y, x, a.cap);
    case Op::sigmoid_gate: return backend_.sigmoid_gate(y, x, x1);
    case Op::route: return backend_.route(y, stat, value(s.out[2]), value(s.out[3]), x, a.normalized);
    case Op::dispatch: return backend_.dispatch(y, x, x1);
    case Op::expert_linear: return backend_.expert_linear(y, x, w, x1);
    case Op::combine: return backend_.combine(y, x, x1, x2);
  }
}

void Executor::backward_step(size_t index, Acc dw_acc) const {
  const Step& s = program_.steps[index];
  const StepPlan& p = plan_.steps[index];
  const OpArgs& a = s.args;
  const Tensor x = value(s.in[0]), x1 = value(s.in[1]), x2 = value(s.in[2]);
  const Tensor y = value(s.out[0]), stat = value(s.out[1]), dy = grad(s.out[0]);
  const Tensor w = weight(s.weight, false);
  const auto d = [&](size_t i) { return p.grad_in[i] ? grad(s.in[i]) : Tensor{}; };
  switch (s.op) {
    case Op::positions: return;
    case Op::embed: return;  // frozen, and nothing trainable lies upstream: the plan never asks
    case Op::rms: return backend_.rms_bwd(d(0), p.acc[0], dy, x, w, stat, a.plus);
    case Op::layer_norm: return backend_.layer_norm_bwd(d(0), p.acc[0], dy, x, w, stat);
    case Op::linear:
      backend_.linear_bwd(d(0), p.acc[0], p.grad_weight ? dw_[static_cast<size_t>(s.weight)] : Tensor{}, dw_acc, dy, x, w,
                          scratch_[index]);
      if (p.grad_in[1] && !p.handed_on[1]) backend_.add_bwd(d(1), p.acc[1], dy);
      return;
    case Op::rope:
      return backend_.rope_bwd(d(0), p.acc[0], dy, rope_tables_[static_cast<size_t>(a.table)], with_rows(a.rope, plan_));
    case Op::attention:
      return backend_.attention_bwd(d(0), d(1), d(2), p.acc[0], p.acc[1], p.acc[2], scratch_[index], dy, x, x1, x2, y, stat,
                                    with_rows(a.attention, plan_));
    case Op::glu: return backend_.glu_bwd(d(0), d(1), p.acc[0], p.acc[1], dy, x, x1, a.activation);
    case Op::act: return backend_.act_bwd(d(0), p.acc[0], dy, x, a.activation);
    case Op::slice: return backend_.slice_bwd(d(0), p.acc[0], dy, a.columns);
    case Op::add:
      for (size_t i = 0; i < 2; ++i)
        if (p.grad_in[i] && !p.handed_on[i]) backend_.add_bwd(d(i), p.acc[i], dy);
      return;
    case Op::softcap: return backend_.softcap_bwd(d(0), p.acc[0], dy, y, a.cap);
    case Op::sigmoid_gate: return backend_.sigmoid_gate_bwd(d(0), d(1), p.acc[0], p.acc[1], dy, x, x1);
    case Op::route: return backend_.route_bwd(d(0), p.acc[0], dy, x, y, stat, a.normalized);
    case Op::dispatch: return backend_.dispatch_bwd(d(0), p.acc[0], dy, x1);
    case Op::expert_linear:
      if (p.grad_weight) backend_.expert_linear_bwd_w(dw_[static_cast<size_t>(s.weight)], dw_acc, dy, x, x1);
      if (p.grad_in[0]) backend_.expert_linear_bwd_x(d(0), p.acc[0], dy, w, x1);
      return;
    case Op::combine: return backend_.combine_bwd(d(0), d(1), p.acc[0], p.acc[1], dy, x, x1, x2);
  }
}

}  // namespace signround
