#include "model/plan.h"

#include <algorithm>
#include <numeric>

namespace signround {
namespace {

struct Moments {
  int steps;
  int forward(size_t s) const { return static_cast<int>(s) + 1; }
  int loss() const { return steps + 1; }
  int backward(size_t s) const { return 2 * steps + 1 - static_cast<int>(s); }
  int end() const { return 2 * steps + 1; }
};

bool bit(unsigned mask, size_t i) { return (mask >> i) & 1u; }

// Pass 1: a slot needs a gradient iff something trainable lies upstream.
void find_gradients(const Program& program, Plan& plan) {
  for (size_t s = 0; s < program.steps.size(); ++s) {
    const Step& step = program.steps[s];
    StepPlan& p = plan.steps[s];
    p.grad_weight = step.weight >= 0 && plan.options.trainable[static_cast<size_t>(step.weight)];
    bool any = p.grad_weight;
    for (size_t i = 0; i < step.in.size(); ++i) {
      if (step.in[i] < 0 || !bit(traits(step.op).differentiable, i)) continue;
      p.grad_in[i] = plan.slots[static_cast<size_t>(step.in[i])].needs_grad;
      any |= p.grad_in[i];
    }
    plan.slots[static_cast<size_t>(step.out[0])].needs_grad = any;
  }
}

// Pass 2: walking up, the first writer of a gradient sets it, later ones add. A result that nobody downstream differentiates gets
// no gradient, and its step no backward.
void order_writers(const Program& program, Plan& plan) {
  std::vector<bool> written(program.slots.size(), false);
  written[static_cast<size_t>(program.output)] = true;  // by the loss
  for (size_t s = program.steps.size(); s-- > 0;) {
    const Step& step = program.steps[s];
    StepPlan& p = plan.steps[s];
    const size_t out = static_cast<size_t>(step.out[0]);
    p.backward = plan.slots[out].needs_grad && written[out];
    if (!p.backward) {
      p.grad_in = {};
      p.grad_weight = false;
      continue;
    }
    for (size_t i = 0; i < step.in.size(); ++i) {
      if (!p.grad_in[i]) continue;
      const size_t in = static_cast<size_t>(step.in[i]);
      p.acc[i] = written[in] ? Acc::add : Acc::set;
      written[in] = true;
    }
  }
}

// Whether step s alone, forward and backward, reads the slot, so that a gradient which its op may write in place can take it.
bool only_reader(const Program& program, size_t s, int slot) {
  for (size_t t = 0; t < program.steps.size(); ++t) {
    const Step& step = program.steps[t];
    if (t != s && std::find(step.in.begin(), step.in.end(), slot) != step.in.end()) return false;
    for (size_t i = 0; i < step.out.size(); ++i)
      if (step.out[i] == slot && bit(traits(step.op).keeps_out, i)) return false;
  }
  return slot != program.input && slot != program.output;
}

// Whether the terms of the sum of step s may share its gradient's place: what adds to one term's gradient later must come when
// the other term's is no longer read.
bool may_share(const Program& program, const Plan& plan, size_t s) {
  const auto& in = program.steps[s].in;
  for (size_t i = 0; i < 2; ++i)
    for (size_t t = 0; t < s; ++t) {
      const Step& step = program.steps[t];
      const bool makes_other = std::find(step.out.begin(), step.out.end(), in[1 - i]) != step.out.end();
      for (size_t u = t + 1; makes_other && u < s; ++u) {  // walking up, u adds before t reads
        const Step& adds = program.steps[u];
        for (size_t j = 0; j < adds.in.size(); ++j)
          if (plan.steps[u].grad_in[j] && adds.in[j] == in[i]) return false;
      }
    }
  return true;
}

int add_placement(Plan& plan, std::string name, i64 bytes, int first, int last) {
  plan.placements.push_back({std::move(name), aligned(bytes), first, last, 0});
  return static_cast<int>(plan.placements.size()) - 1;
}

void extend(Plan& plan, int placement, int moment) {
  Placement& p = plan.placements[static_cast<size_t>(placement)];
  p.first = std::min(p.first, moment);
  p.last = std::max(p.last, moment);
}

// Pass 3: lifetimes. A value lives from its step to its last reader; the backward reads only what the op's traits name.
void find_lifetimes(const Program& program, Plan& plan, const Moments& at) {
  const auto slot_bytes = [&](const Slot& slot) { return plan.rows_of(slot) * slot.cols * bytes_of(plan.type_of(slot)); };
  const auto value = [&](int slot, int moment) {
    const size_t i = static_cast<size_t>(slot);
    int& placement = plan.slots[i].value;
    if (placement < 0) placement = add_placement(plan, program.slots[i].name, slot_bytes(program.slots[i]), moment, moment);
    extend(plan, placement, moment);
    if (moment > at.loss()) plan.slots[i].kept = true;
  };
  const auto grad = [&](int slot, int moment) {
    const size_t i = static_cast<size_t>(slot);
    int& placement = plan.slots[i].grad;
    if (placement < 0)
      placement = add_placement(plan, "d " + program.slots[i].name, slot_bytes(program.slots[i]), moment, moment);
    extend(plan, placement, moment);
  };

  value(program.input, 0);
  for (size_t s = 0; s < program.steps.size(); ++s) {
    const Step& step = program.steps[s];
    for (int in : step.in)
      if (in >= 0) value(in, at.forward(s));
    for (int out : step.out)
      if (out >= 0) value(out, at.forward(s));
  }
  for (size_t i = 0; i < program.slots.size(); ++i)  // what is counted lasts
    if (program.slots[i].kind == SlotKind::counts)
      for (int moment : {0, at.end()}) extend(plan, plan.slots[i].value, moment);
  value(program.output, at.loss());
  if (!plan.options.tuning) return;

  grad(program.output, at.loss());
  for (size_t s = program.steps.size(); s-- > 0;) {
    const Step& step = program.steps[s];
    StepPlan& p = plan.steps[s];
    if (!p.backward) continue;
    const OpTraits& t = traits(step.op);
    const bool sums = step.op == Op::add && may_share(program, plan, s);
    // A linear keeps its input for dw alone.
    const bool linear = step.op == Op::linear || step.op == Op::expert_linear;
    const unsigned keeps_in = linear && !p.grad_weight ? t.keeps_in & ~1u : t.keeps_in;
    const auto shares = [&](size_t i) { return sums || (step.op == Op::linear && i == 1); };
    for (size_t i = 0; i < step.in.size(); ++i) {
      if (step.in[i] >= 0 && bit(keeps_in, i)) value(step.in[i], at.backward(s));
      if (!p.grad_in[i]) continue;
      if (bit(t.in_place, i) && p.acc[i] == Acc::set && only_reader(program, s, step.in[i])) {
        SlotPlan& slot = plan.slots[static_cast<size_t>(step.in[i])];
        slot.grad = slot.value;
      }
      if (shares(i) && p.acc[i] == Acc::set) {
        plan.slots[static_cast<size_t>(step.in[i])].grad = plan.slots[static_cast<size_t>(step.out[0])].grad;
        p.handed_on[i] = true;
      }
      grad(step.in[i], at.backward(s));
    }
    for (size_t i = 0; i < step.out.size(); ++i)
      if (step.out[i] >= 0 && bit(t.keeps_out, i)) value(step.out[i], at.backward(s));
    grad(step.out[0], at.backward(s));
    if (p.grad_weight) {
      const size_t w = static_cast<size_t>(step.weight);
      const WeightRef& ref = program.weights[w];
      const i64 size = ref.rows * ref.cols;
      const bool keep = plan.options.keep_weight_grads;
      plan.wq[w] = add_placement(plan, "q " + ref.name, size * bytes_of(plan.options.weight_types[w]), 0, at.end());
      plan.dw[w] = add_placement(plan, "d " + ref.name, size * bytes_of(plan.options.weight_grad), keep ? 0 : at.backward(s),
                                 keep ? at.end() : at.backward(s));
    }
    const auto scratch = [&](std::string name, i64 bytes) {
      if (bytes > 0) plan.scratch[s] = add_placement(plan, std::move(name), bytes, at.backward(s), at.backward(s));
    };
    if (step.op == Op::attention) scratch("delta", slot_bytes({SlotKind::statistic, step.args.attention.heads, {}}));
    if (step.op == Op::linear && plan.options.linear_scratch) {
      const WeightRef& ref = program.weights[static_cast<size_t>(step.weight)];
      const i64 rows = plan.rows_of(program.slots[static_cast<size_t>(step.out[0])]);
      scratch("factors of " + step.name, plan.options.linear_scratch({rows, ref.rows, ref.cols, p.grad_in[0], p.grad_weight}));
    }
  }
}

// Pass 4: offsets. Largest first, each at the lowest offset that is free for its whole life.
void place(Plan& plan) {
  std::vector<size_t> order(plan.placements.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return plan.placements[a].bytes > plan.placements[b].bytes; });
  std::vector<const Placement*> placed;  // by offset
  for (size_t i : order) {
    Placement& p = plan.placements[i];
    for (const Placement* q : placed) {
      const bool meet = p.first <= q->last && q->first <= p.last;
      if (meet && p.offset < q->offset + q->bytes && q->offset < p.offset + p.bytes) p.offset = q->offset + q->bytes;
    }
    const auto after = std::find_if(placed.begin(), placed.end(), [&](const Placement* q) { return q->offset > p.offset; });
    placed.insert(after, &p);
    plan.bytes = std::max(plan.bytes, p.offset + p.bytes);
  }
}

}  // namespace

DType Plan::type_of(const Slot& s) const {
  switch (s.kind) {
    case SlotKind::ids:
    case SlotKind::counts: return DType::i32;
    case SlotKind::statistic:
      return options.activation == DType::f64 || options.activation == DType::dual ? options.activation : DType::f32;
    case SlotKind::activation: return options.activation;
  }
  fail(ErrorKind::bug, "unknown slot kind");
}

Plan make_plan(const Program& program, const PlanOptions& options) {
  Plan plan;
  plan.options = options;
  plan.options.trainable.resize(program.weights.size(), false);
  plan.options.weight_types.resize(program.weights.size(), DType::f32);
  plan.steps.resize(program.steps.size());
  plan.slots.resize(program.slots.size());
  plan.scratch.assign(program.steps.size(), -1);
  plan.wq.assign(program.weights.size(), -1);
  plan.dw.assign(program.weights.size(), -1);
  if (options.tuning) {
    find_gradients(program, plan);
    order_writers(program, plan);
  }
  find_lifetimes(program, plan, Moments{static_cast<int>(program.steps.size())});
  place(plan);
  return plan;
}

double flops_forward(const Program& program, const Step& step, i64 batch, i64 tokens) {
  const double rows = static_cast<double>(batch * tokens);
  if (step.op == Op::linear || step.op == Op::expert_linear) {
    const Slot& out = program.slots[static_cast<size_t>(step.out[0])];
    return 2 * rows * static_cast<double>(out.per_token * out.cols * program.weights[static_cast<size_t>(step.weight)].cols);
  }
  if (step.op == Op::attention) {
    const AttentionShape& a = step.args.attention;
    const double t = static_cast<double>(tokens);
    const double w = a.window > 0 && a.window < tokens ? static_cast<double>(a.window) : t;
    const double visible = a.causal ? w * (t - w) + w * (w + 1) / 2 : t * t;  // scores of one head of one sequence
    return 4 * static_cast<double>(batch * a.heads * a.head_dim) * visible;
  }
  return 0;  // the rest is bound by memory, not by arithmetic
}

double flops_backward(const Program& program, const Plan& plan, size_t step) {
  const Step& s = program.steps[step];
  const StepPlan& p = plan.steps[step];
  if (!p.backward) return 0;
  const double forward = flops_forward(program, s, plan.options.batch, plan.options.tokens);
  if (s.op == Op::attention) return 2.5 * forward;  // five products instead of two
  return forward * (static_cast<double>(p.grad_in[0]) + static_cast<double>(p.grad_weight));
}

namespace {

double slot_bytes(const Program& program, const Plan& plan, int slot) {
  if (slot < 0) return 0;
  const Slot& s = program.slots[static_cast<size_t>(slot)];
  return static_cast<double>(plan.rows_of(s) * s.cols * bytes_of(plan.type_of(s)));
}

}  // namespace

double bytes_forward(const Program& program, const Plan& plan, size_t step) {
  double bytes = 0;
  for (int in : program.steps[step].in) bytes += slot_bytes(program, plan, in);
  for (int out : program.steps[step].out) bytes += slot_bytes(program, plan, out);
  return bytes;
}

double bytes_backward(const Program& program, const Plan& plan, size_t step) {
  const Step& s = program.steps[step];
  const StepPlan& p = plan.steps[step];
  const OpTraits& t = traits(s.op);
  const bool reads = p.grad_in != p.handed_on || p.grad_weight;
  double bytes = reads ? slot_bytes(program, plan, s.out[0]) : 0;
  for (size_t i = 0; i < s.in.size(); ++i) {
    if (bit(t.keeps_in, i)) bytes += slot_bytes(program, plan, s.in[i]);
    if (p.grad_in[i] && !p.handed_on[i]) bytes += slot_bytes(program, plan, s.in[i]) * (p.acc[i] == Acc::add ? 2 : 1);
  }
  for (size_t i = 0; i < s.out.size(); ++i)
    if (bit(t.keeps_out, i)) bytes += slot_bytes(program, plan, s.out[i]);
  return bytes;
}

}  // namespace signround
