#include "model/program.h"

#include <algorithm>

namespace signround {

const OpTraits& traits(Op op) {
  static constexpr OpTraits kTraits[] = {
      {"embed", 0, 0b1, 0},           // ids
      {"positions", 0, 0, 0},         //
      {"rms", 0b1, 0b1, 0b10},        // x, r
      {"layer_norm", 0b1, 0b1, 0b10}, // x, m and r
      {"linear", 0b11, 0b1, 0},       // x, and only for dw: see plan.cpp
      {"rope", 0b1, 0, 0},            //
      {"attention", 0b111, 0b111, 0b11},  // q, k, v, o, lse
      {"glu", 0b11, 0b11, 0, 0b11},   // g, u
      {"act", 0b1, 0b1, 0, 0b1},      // x
      {"slice", 0b1, 0, 0},           //
      {"add", 0b11, 0, 0},            //
      {"softcap", 0b1, 0, 0b1},       // y
      {"sigmoid_gate", 0b11, 0b11, 0},      // x, g
      {"route", 0b1, 0b1, 0b11},            // z, weights, order
      {"dispatch", 0b1, 0b10, 0},           // order
      {"expert_linear", 0b1, 0b11, 0},      // bounds, and x only for dw: see plan.cpp
      {"combine", 0b11, 0b111, 0},          // x, weights, order
  };
  return kTraits[static_cast<int>(op)];
}

std::string Program::layer_name(const WeightRef& w) const {
  const std::string full = prefix + w.name;
  const size_t dot = full.rfind('.');
  return full.substr(0, dot);
}

std::vector<std::string> Program::layer_names(const WeightRef& w) const {
  if (w.experts == 0) return {layer_name(w)};
  std::vector<std::string> names;
  for (i64 e = 0; e < w.experts; ++e) names.push_back(of_expert(layer_name(w), e));
  return names;
}

std::string of_expert(std::string name, i64 expert) { return name.replace(name.find('*'), 1, cat(expert)); }

int Builder::slot(SlotKind kind, i64 cols, std::string name) {
  program_.slots.push_back({kind, cols, std::move(name)});
  return static_cast<int>(program_.slots.size()) - 1;
}

int Builder::weight(const std::string& name, i64 rows, i64 cols, bool linear) {
  program_.weights.push_back({name, rows, cols, linear});
  return static_cast<int>(program_.weights.size()) - 1;
}

Step& Builder::step(Op op, std::string name, std::initializer_list<int> in, i64 out_cols) {
  Step s;
  s.op = op;
  std::copy(in.begin(), in.end(), s.in.begin());
  s.out[0] = slot(SlotKind::activation, out_cols, name);
  per_token(s.out[0]) = per_token(*in.begin());
  s.name = std::move(name);
  program_.steps.push_back(std::move(s));
  return program_.steps.back();
}

int Builder::input(i64 cols) { return program_.input = slot(SlotKind::activation, cols, "input"); }
int Builder::ids() { return program_.input = slot(SlotKind::ids, 1, "ids"); }

int Builder::embed(int ids, const std::string& name, i64 vocab, i64 cols, float scale) {
  Step& s = step(Op::embed, name, {ids}, cols);
  s.weight = weight(name + ".weight", vocab, cols, false);
  s.args.scale = scale;
  return s.out[0];
}

int Builder::positions(int ids, i64 offset) {
  Step& s = step(Op::positions, "positions", {ids}, 1);
  program_.slots[static_cast<size_t>(s.out[0])].kind = SlotKind::ids;
  s.args.offset = offset;
  return s.out[0];
}

int Builder::rms(int x, const std::string& name, float eps, float plus, i64 width) {
  if (width == 0) width = cols(x);
  Step& s = step(Op::rms, name, {x}, cols(x));
  s.weight = weight(name + ".weight", width, 0, false);
  s.args.eps = eps;
  s.args.plus = plus;
  s.out[1] = slot(SlotKind::statistic, cols(x) / width, name + " 1/rms");
  return s.out[0];
}

int Builder::layer_norm(int x, const std::string& name, float eps, i64 width) {
  if (width == 0) width = cols(x);
  Step& s = step(Op::layer_norm, name, {x}, cols(x));
  s.weight = weight(name + ".weight", width, 0, false);
  s.bias = weight(name + ".bias", width, 0, false);
  s.args.eps = eps;
  s.out[1] = slot(SlotKind::statistic, 2 * (cols(x) / width), name + " mean, 1/deviation");
  return s.out[0];
}

int Builder::linear(int x, const std::string& name, i64 out, bool bias, bool transposed) {
  Step& s = step(Op::linear, name, {x}, out);
  s.weight = weight(name + ".weight", out, cols(x), true);
  program_.weights.back().transposed = transposed;
  if (bias) s.bias = weight(name + ".bias", out, 0, false);
  return s.out[0];
}

int Builder::tied_linear(int x, const std::string& table, i64 out, const std::string& bias) {
  const int y = linear(x, table, out, !bias.empty());
  if (!bias.empty()) program_.weights.back().name = bias;
  return y;
}

int Builder::unit_linear(int x, const std::string& name, i64 out) {
  const int y = linear(x, name, out);
  program_.weights.back().unit_rows = true;
  return y;
}

int Builder::router(int x, const std::string& name, i64 out) {
  Step& s = step(Op::linear, name, {x}, out);
  s.weight = weight(name + ".weight", out, cols(x), false);
  program_.weights.back().router = true;
  return s.out[0];
}

int Builder::rope(int x, const RopeTable& table, RopeShape shape) {
  Step& s = step(Op::rope, "rope", {x}, cols(x));
  shape.heads = cols(x) / shape.head_dim;
  s.args.rope = shape;
  std::vector<RopeTable>& tables = program_.rope_tables;
  const auto known = std::find(tables.begin(), tables.end(), table);
  s.args.table = static_cast<int>(known - tables.begin());
  if (known == tables.end()) tables.push_back(table);
  return s.out[0];
}

int Builder::attention(int q, int k, int v, const AttentionShape& shape) {
  Step& s = step(Op::attention, "attention", {q, k, v}, cols(q));
  s.args.attention = shape;
  s.out[1] = slot(SlotKind::statistic, shape.heads, "log-sum-exp");
  return s.out[0];
}

int Builder::glu(int gate, int up, Activation activation) {
  Step& s = step(Op::glu, "glu", {gate, up}, cols(gate));
  s.args.activation = activation;
  return s.out[0];
}

int Builder::act(int x, Activation activation) {
  Step& s = step(Op::act, "act", {x}, cols(x));
  s.args.activation = activation;
  return s.out[0];
}

int Builder::slice(int x, const ColumnSlice& columns) {
  Step& s = step(Op::slice, "slice", {x}, cols(x) / columns.period * columns.width);
  s.args.columns = columns;
  return s.out[0];
}

int Builder::add(int a, int b) { return step(Op::add, "add", {a, b}, cols(a)).out[0]; }

int Builder::softcap(int x, float cap) {
  Step& s = step(Op::softcap, "softcap", {x}, cols(x));
  s.args.cap = cap;
  return s.out[0];
}

int Builder::sigmoid_gate(int x, int gate) { return step(Op::sigmoid_gate, "sigmoid_gate", {x, gate}, cols(x)).out[0]; }

Routing Builder::route(int z, const std::string& name, i64 active, bool normalized) {
  const i64 experts = cols(z);
  Step& s = step(Op::route, "route", {z}, active);
  s.args.normalized = normalized;
  s.out[1] = slot(SlotKind::ids, active, "order of the choices");
  s.out[2] = slot(SlotKind::ids, experts + 1, "bounds of the experts");
  s.out[3] = slot(SlotKind::counts, experts, name);
  per_token(s.out[1]) = 3;
  per_token(s.out[2]) = per_token(s.out[3]) = 0;
  return {s.out[0], s.out[1], s.out[2], experts, active};
}

int Builder::dispatch(int x, const Routing& to) {
  const int y = step(Op::dispatch, "dispatch", {x, to.order}, cols(x)).out[0];
  per_token(y) = to.active;
  return y;
}

int Builder::expert_linear(int x, const Routing& at, const std::string& name, i64 out) {
  Step& s = step(Op::expert_linear, name, {x, at.bounds}, out);
  s.weight = weight(name + ".weight", at.experts * out, cols(x), true);
  program_.weights.back().experts = at.experts;
  return s.out[0];
}

int Builder::combine(int x, const Routing& from) {
  const int y = step(Op::combine, "combine", {x, from.weights, from.order}, cols(x)).out[0];
  per_token(y) = per_token(from.weights);
  return y;
}

// A linear that nothing but a sum reads adds the sum's other term itself, where that is there in time: what it would write, and
// the sum read, never comes to memory.
void Builder::absorb_sums() {
  std::vector<Step>& steps = program_.steps;
  const auto maker = [&](int slot) {  // -1: none
    const auto made = std::find_if(steps.begin(), steps.end(), [&](const Step& s) { return s.out[0] == slot; });
    return made == steps.end() ? -1 : static_cast<int>(made - steps.begin());
  };
  const auto readers = [&](int slot) {
    i64 count = slot == program_.output;
    for (const Step& s : steps) count += std::count(s.in.begin(), s.in.end(), slot);
    return count;
  };
  for (size_t s = 0; s < steps.size(); ++s)
    for (size_t i = 0; i < 2 && steps[s].op == Op::add; ++i) {
      const int term = steps[s].in[i], other = steps[s].in[1 - i], linear = maker(term);
      if (linear < 0 || linear < maker(other) || readers(term) > 1) continue;
      Step& product = steps[static_cast<size_t>(linear)];
      if (product.op != Op::linear || product.in[1] >= 0) continue;
      product.in[1] = other;
      product.out[0] = steps[s].out[0];
      steps.erase(steps.begin() + static_cast<std::ptrdiff_t>(s--));
      break;
    }
}

Program Builder::finish() {
  absorb_sums();
  return std::move(program_);
}

}  // namespace signround
