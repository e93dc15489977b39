#include "model/explain.h"

#include <algorithm>
#include <cstdio>

namespace signround {
namespace {

template <class... A>
std::string format(const char* pattern, A... values) {
  char line[512];
  std::snprintf(line, sizeof line, pattern, values...);
  return line;
}

std::string megabytes(i64 bytes) { return bytes ? format("%.2f", static_cast<double>(bytes) / 1e6) : "-"; }
std::string gigaflops(double flops) { return flops > 0 ? format("%.2f", flops / 1e9) : "-"; }

// "q_proj" reads better in a table than "self_attn.q_proj"; the arena's map keeps the whole names.
std::string shape_of(const Program& program, const Step& s) {
  std::string shape;
  for (int in : s.in)
    if (in >= 0) shape += cat(shape.empty() ? "" : ",", program.slots[static_cast<size_t>(in)].cols);
  return cat(shape, " -> ", program.slots[static_cast<size_t>(s.out[0])].cols);
}

// "x =" : dx is set; "q =, k +=" ...; "w" : dw feeds SignRound.
std::string gradients_of(const StepPlan& p, const Step& s) {
  static constexpr const char* kNames[] = {"a", "b", "c"};
  static constexpr const char* kAttention[] = {"q", "k", "v"};
  static constexpr const char* kGlu[] = {"gate", "up", ""};
  static constexpr const char* kLinear[] = {"x", "residual", ""};
  if (!p.backward) return "none: nothing upstream is tuned";
  std::string text;
  const bool single = traits(s.op).differentiable == 0b1;
  for (size_t i = 0; i < s.in.size(); ++i) {
    if (!p.grad_in[i]) continue;
    const char* const* names = s.op == Op::attention ? kAttention
                               : s.op == Op::glu     ? kGlu
                               : s.op == Op::linear  ? kLinear
                                                     : kNames;
    const char* name = single ? "x" : names[i];
    text += cat(text.empty() ? "" : ", ", "d", name, p.acc[i] == Acc::set ? " =" : " +=");
  }
  if (p.grad_weight) text += cat(text.empty() ? "" : ", ", "dw =");
  if (p.grad_weight && !p.grad_in[0]) text += " (dx skipped)";
  return text;
}

}  // namespace

std::string explain(const Program& program, const Plan& plan) {
  const i64 batch = plan.options.batch, tokens = plan.options.tokens;
  std::string out =
      cat("block ", program.prefix, "  ", program.steps.size(), " steps, ", batch, " sequences of ", tokens, " tokens\n\n");
  out += format("%-28s %-22s %10s %12s %12s  %s\n", "step", "columns", "kept MB", "GFLOP fwd", "GFLOP bwd", "gradients");
  double forward = 0, backward = 0;
  i64 kept_bytes = 0;
  for (size_t s = 0; s < program.steps.size(); ++s) {
    const Step& step = program.steps[s];
    i64 kept = 0;
    for (int o : step.out)
      if (o >= 0 && plan.slots[static_cast<size_t>(o)].kept)
        kept += plan.placements[static_cast<size_t>(plan.slots[static_cast<size_t>(o)].value)].bytes;
    const double f = flops_forward(program, step, batch, tokens), b = flops_backward(program, plan, s);
    forward += f;
    backward += b;
    kept_bytes += kept;
    out += format("%-28s %-22s %10s %12s %12s  %s\n", step.name.c_str(), shape_of(program, step).c_str(), megabytes(kept).c_str(),
                  gigaflops(f).c_str(), gigaflops(b).c_str(), gradients_of(plan.steps[s], step).c_str());
  }
  out += format("%-28s %-22s %10s %12s %12s\n", "total", "", megabytes(kept_bytes).c_str(), gigaflops(forward).c_str(),
                gigaflops(backward).c_str());

  out += cat("\narena ", format("%.2f", static_cast<double>(plan.bytes) / 1e6), " MB; moments: 0 input, 1..",
             program.steps.size(), " forward, ", program.steps.size() + 1, " loss, ", program.steps.size() + 2, "..",
             2 * program.steps.size() + 1, " backward\n");
  out += format("%12s %12s  %-9s %s\n", "offset MB", "size MB", "lives", "tensor");
  std::vector<const Placement*> order;
  for (const Placement& p : plan.placements) order.push_back(&p);
  std::stable_sort(order.begin(), order.end(), [](const Placement* a, const Placement* b) { return a->offset < b->offset; });
  for (const Placement* p : order)
    out += format("%12.2f %12.2f  %3d..%-4d %s\n", static_cast<double>(p->offset) / 1e6, static_cast<double>(p->bytes) / 1e6,
                  p->first, p->last, p->name.c_str());
  return out;
}

}  // namespace signround
