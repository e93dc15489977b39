// A network block as data: a short list of steps over slots. Forward walks the list down, backward walks it up; everything else
// (who needs a gradient, where = and where +=, what is kept, every offset) is derived from it once, in plan.h.
#pragma once
#include <array>
#include <string>
#include <vector>

#include "ops/ops.h"

namespace signround {

enum class Op : u8 {
  embed, positions, rms, layer_norm, linear, rope, attention, glu, act, slice, add, softcap,
  sigmoid_gate, route, dispatch, expert_linear, combine
};

// The numbers of a step. Each op reads its own; batch and tokens of the shapes are filled in when the plan is made.
struct OpArgs {
  float eps = 0, plus = 0;     // rms, layer_norm
  float scale = 1;             // embed
  i64 offset = 0;              // positions
  int table = -1;              // rope: index into Program::rope_tables
  RopeShape rope{};            // rope
  AttentionShape attention{};  // attention
  Activation activation{};     // glu, act
  ColumnSlice columns{};       // slice
  float cap = 0;               // softcap
  bool normalized = false;     // route
};

struct Step {
  Op op{};
  std::string name;                      // as in the checkpoint: "self_attn.q_proj"; else the op's
  std::array<int, 3> in = {-1, -1, -1};  // slots
  std::array<int, 4> out = {-1, -1, -1, -1};  // slots: the result, and what else the backward or later steps want of it
  int weight = -1, bias = -1;            // Program::weights
  OpArgs args;
};

// i32, the backend's activation type, f32; counts: i32 that grow while a block is tuned.
enum class SlotKind : u8 { ids, activation, statistic, counts };

struct Slot {
  SlotKind kind = SlotKind::activation;
  i64 cols = 0;
  std::string name;
  i64 per_token = 1;  // rows for each of the N = B*T tokens; 0: one row in all
};

struct WeightRef {
  std::string name;        // in the checkpoint, without the program's prefix: "self_attn.q_proj.weight"
  i64 rows = 0, cols = 0;  // cols 0: a vector of `rows` elements
  bool linear = false;      // a linear layer's matrix: may be quantized
  bool transposed = false;  // the checkpoint holds it as [cols, rows]
  bool unit_rows = false;   // rows are divided by their lengths, in f32
  bool router = false;      // a linear layer's matrix that decides over others: never quantized
  i64 experts = 0;          // matrices of so many experts, one below the other; '*' in the name stands for their numbers
};

// Angles of the rotary embedding: position t turns pair i by t * inv_freq[i]; cos and sin are multiplied by scale. Sequences of
// more than long_from positions (0: none) have long_inv_freq instead, or frequencies whose base theta grows with their length.
struct RopeTable {
  std::vector<double> inv_freq, long_inv_freq;
  i64 long_from = 0;
  double scale = 1;
  double growth = 0, theta = 0;  // growth 0: long_inv_freq
  friend bool operator==(const RopeTable&, const RopeTable&) = default;
};

struct Program {
  std::string prefix;  // of the weights' names in the checkpoint: "model.layers.3."
  std::vector<Slot> slots;
  std::vector<WeightRef> weights;
  std::vector<Step> steps;
  std::vector<RopeTable> rope_tables;
  int input = -1, output = -1;  // slots

  // The layer's name as users know it: prefix + "self_attn.q_proj"; of experts, with their '*'.
  std::string layer_name(const WeightRef& w) const;
  // The layers that the weight holds, one below the other: that one, or one for each expert.
  std::vector<std::string> layer_names(const WeightRef& w) const;
};

// "mlp.experts.*.up_proj", 3 -> "mlp.experts.3.up_proj"
std::string of_expert(std::string name, i64 expert);

// What the backward of an op reads of its forward, as bit masks over Step::in and Step::out, and which inputs have a gradient.
struct OpTraits {
  const char* name;
  unsigned differentiable;  // inputs
  unsigned keeps_in, keeps_out;
  unsigned in_place = 0;  // inputs whose gradient the backward may write over the input itself
};
const OpTraits& traits(Op op);

// Which expert each token chose: the slots of ops/ops.h.
struct Routing {
  int weights, order, bounds;
  i64 experts, active;
};

// Writes a Program: one method an op, each returns the slot of its result. `x` is a slot.
class Builder {
 public:
  explicit Builder(std::string prefix) { program_.prefix = std::move(prefix); }

  int input(i64 cols);  // activations [N, cols]
  int ids();            // token ids [N]
  int positions(int ids, i64 offset);
  void output(int x) { program_.output = x; }

  int embed(int ids, const std::string& name, i64 vocab, i64 cols, float scale = 1);
  // width: columns that one norm runs over, such as those of a head; 0: all.
  int rms(int x, const std::string& name, float eps, float plus = 0, i64 width = 0);
  int layer_norm(int x, const std::string& name, float eps, i64 width = 0);  // with a bias
  // transposed: the checkpoint holds the weight as [in, out].
  int linear(int x, const std::string& name, i64 out, bool bias = false, bool transposed = false);
  // Of a table of embeddings, and with a bias of its own if it has a name.
  int tied_linear(int x, const std::string& table, i64 out, const std::string& bias = {});
  int unit_linear(int x, const std::string& name, i64 out);  // of the weight's rows, each divided by its length
  // A linear layer that decides over others and stays as it is.
  int router(int x, const std::string& name, i64 out);
  int rope(int x, const RopeTable& table, RopeShape shape);
  int attention(int q, int k, int v, const AttentionShape& shape);
  int glu(int gate, int up, Activation activation);
  int act(int x, Activation activation);
  int slice(int x, const ColumnSlice& columns);
  int add(int a, int b);
  int softcap(int x, float cap);
  int sigmoid_gate(int x, int gate);

  // Each token goes to `active` of the experts that z [N, experts] scores; then back. name: of the experts, "mlp.experts".
  Routing route(int z, const std::string& name, i64 active, bool normalized);
  int dispatch(int x, const Routing& to);
  // A linear of each expert; name: "mlp.experts.*.up_proj".
  int expert_linear(int x, const Routing& at, const std::string& name, i64 out);
  int combine(int x, const Routing& from);

  Program finish();

 private:
  void absorb_sums();
  int slot(SlotKind kind, i64 cols, std::string name);
  int weight(const std::string& name, i64 rows, i64 cols, bool linear);
  i64 cols(int x) const { return program_.slots[static_cast<size_t>(x)].cols; }
  i64& per_token(int x) { return program_.slots[static_cast<size_t>(x)].per_token; }
  Step& step(Op op, std::string name, std::initializer_list<int> in, i64 out_cols);

  Program program_;
};

}  // namespace signround
