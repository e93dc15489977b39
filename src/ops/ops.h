// The instruction set: every operation that a network block, its loss and SignRound need, each beside its hand-derived backward.
// One abstract class, one implementation a device (src/ops/cpu/, cuda/), the same file names. _bwd functions are pure virtual:
// an op without a backward does not link.
//
// Letters: B sequences, T positions, N = B*T tokens (rows), D model, I/O columns in/out of a linear, H/K query/KV heads, d head,
// F feed-forward, V vocabulary, G groups of a row, E experts. dx = d(loss)/dx. Order of parameters: outputs, inputs, scalars.
// Tensors are row-major, row = token. Activations and their gradients are of the backend's activation type, statistics f32.
// A gradient tensor with no data (a false Tensor) is not wanted and is skipped.
// Numerics: sums are accumulated in f32 (f64 where T is f64) in an order that depends neither on threads nor on the run.
#pragma once
#include <functional>
#include <span>
#include <string>

#include "base/memory.h"
#include "ops/types.h"

namespace signround {

// One linear's weight and what SignRound learns for it.
struct QdqTensors {
  Tensor w;           // [O,I] original weight, f32 | f16 | bf16
  Tensor wmin, wmax;  // [O,G] f32: min(0, min w), max(0, max w) of each group, fixed
  Tensor v;           // [O,I] f32: rounding offsets, start 0
  Tensor lo, hi;      // [O,G] f32: factors of wmin, wmax, start 1 or where search_factors finds them

  QdqTensors rows(i64 first, i64 count) const {
    const auto part = [&](Tensor t) { return t.slice(first, count); };
    return {part(w), part(wmin), part(wmax), part(v), part(lo), part(hi)};
  }
};

// The integers and scales of one linear. A group's weights are S (code - zero), with S its scale; at two levels S = scale factor
// with the scale of its super-block, and asymmetric weights are S code - offset zero.
struct GridTensors {
  Tensor codes;   // u8 [O,I] in [0, 2^bits)
  Tensor scale;   // f16 [O, scales of a row], sign included
  Tensor zero;    // u8 [O,G]; 2^(bits-1) if symmetric
  Tensor factor;  // i8 [O,G], never 0: two levels alone
  Tensor offset;  // f16 [O, scales of a row]: two levels and asymmetric alone
};

// Whether a kernel may take the spec for rows of so many columns, and the tensors for the weights w [O,I].
inline bool fits_spec(const QuantSpec& s, i64 cols) {
  const bool groups = s.group == 16 || s.group == 32;
  return s.bits >= 2 && s.bits <= 8 &&
         (!s.two_levels() || (s.scale_bits >= 2 && s.scale_bits <= 8 && groups && cols % kSuperBlock == 0));
}
inline bool fits_grid(const GridTensors& g, Tensor w, const QuantSpec& s) {
  const i64 groups = w.rows() * s.groups(w.cols()), scales = w.rows() * s.scales(w.cols());
  const auto fits = [](Tensor t, DType type, i64 size, bool wanted) {
    return wanted ? t.dtype == type && t.size() == size && t : !t;
  };
  return fits(g.codes, DType::u8, w.size(), true) && fits(g.scale, DType::f16, scales, true) &&
         fits(g.zero, DType::u8, groups, true) && fits(g.factor, DType::i8, groups, s.two_levels()) &&
         fits(g.offset, DType::f16, scales, s.two_levels() && !s.symmetric);
}

// A weight's part of a step.
struct QdqStep {
  Tensor wq;  // [O,I] as w
  QdqTensors q;
  Tensor dwq;  // [O,I] f32, or the backend's activation type
  QuantSpec spec;
  float most = 1;  // what lo and hi may grow to
};

// Where the tuning loop is.
struct Counters {
  i32 micro;      // the next micro-batch
  i32 step;       // that the last one belongs to
  i32 best_step;  // of the lowest loss
  i32 is_best;    // 1 if all micro-batches of `step` were there and it is the best so far
};

// What an iteration of the tuning loop reads and writes, all on the device, so that the host neither waits nor is asked.
struct TuningState {
  Tensor order;        // i32 [micro-batches * B]: which samples, in the order of their use
  Tensor lr;           // f32 [steps]: step size of v
  Tensor minmax_lr;    // f32 [steps]: step size of lo and hi
  Tensor loss;         // f32 [steps]: summed over the micro-batches of a step
  Tensor best;         // f32 [1]: lowest loss so far
  Tensor counters;     // i32 [4]: Counters
  i64 accumulate = 1;  // micro-batches of a step

  Counters* now() const {
    check(counters.dtype == DType::i32 && counters.size() == 4, ErrorKind::bug, "tuning counters are i32 [4]");
    return static_cast<Counters*>(counters.data);
  }
};

// What micro-batches shall give: micro-batch m the samples order[m*B] .. of all that there are, or, in turn, those in place m % n
// of n places, each of B*T rows.
struct Targets {
  Tensor states;  // [samples*T or n*B*T, D] of activations; may lie in the host's memory
  bool in_turn = false;

  bool fit(Tensor dy, Tensor y, i64 tokens) const {
    return dy.size() == y.size() && dy.dtype == y.dtype && states.dtype == y.dtype && states.cols() == y.cols() && tokens > 0 &&
           y.rows() % tokens == 0 && states.rows() % (in_turn ? y.rows() : tokens) == 0 && states.rows() > 0;
  }
};

struct Backend : Allocator {
  virtual std::string name() const = 0;       // "cpu avx512bf16", "cuda NVIDIA H100 80GB HBM3"
  virtual DType activation_type() const = 0;  // of activations and their gradients
  virtual i64 free_bytes() const = 0;         // memory that allocate() can still give
  virtual i64 total_bytes() const = 0;
  virtual i64 peak_bytes() const = 0;  // most that was allocated at one time, host_memory() not counted
  // Memory of the host that the ops reach as they reach the device's own, only slower (a GPU: pinned). A CPU's own memory.
  virtual Allocator& host_memory() = 0;

  // ---- memory. upload/download are complete when they return; the rest is ordered with the ops.
  virtual void upload(Tensor dst, const void* src) = 0;
  virtual void download(void* dst, Tensor src) = 0;
  virtual void copy(Tensor dst, Tensor src) = 0;  // converts between float types
  virtual void fill(Tensor dst, float value) = 0;
  virtual void synchronize() = 0;
  // What body issues may overlap what is issued after it, until rejoin(): a GPU has a second stream for it. The ops between must
  // not touch what body writes, nor write what it reads.
  virtual void aside(const std::function<void()>& body) = 0;
  virtual void rejoin() = 0;
  // Runs body `times` times. A device with a command graph records one run and replays it: body must do the same each time.
  // issued(n) is called on the host after the n-th run was issued (not necessarily finished) and may throw to stop.
  virtual void repeat(i64 times, const std::function<void()>& body, const std::function<void(i64)>& issued) = 0;

  // ---- embedding.   y[n] = scale * table[ids[n]];  ids are i32. The table is frozen:
  //   dtable[ids[n]] += scale * dy[n], in the order of n.
  virtual void embed(Tensor y, Tensor ids, Tensor table, float scale) = 0;
  virtual void embed_bwd(Tensor dtable, Tensor dy, Tensor ids, float scale) = 0;

  // ---- positions, for tables of learned positions.   y[n] = n % T + offset, i32. Integers: nothing to differentiate.
  virtual void positions(Tensor y, i64 tokens, i64 offset) = 0;

  // ---- RMSNorm.   y = x o (w+p) * r,   r = 1/sqrt(mean(x^2) + eps);  p is 1 for families that store w - 1. Keeps x, r.
  //   dx = r * (dy o (w+p))  -  x * r^3 * mean(dy o (w+p) o x)
  virtual void rms(Tensor y, Tensor r, Tensor x, Tensor w, float eps, float p) = 0;
  virtual void rms_bwd(Tensor dx, Acc acc, Tensor dy, Tensor x, Tensor w, Tensor r, float p) = 0;

  // ---- LayerNorm.   y = (x - m) * r o w + b,   m = mean(x),   r = 1/sqrt(mean((x-m)^2) + eps).  b may be empty.
  //   stat[N,2]: m and r of each row. Keeps x, stat.   With h = (x - m) * r and a = dy o w:
  //   dx = r * (a - mean(a) - h * mean(a o h))
  virtual void layer_norm(Tensor y, Tensor stat, Tensor x, Tensor w, Tensor b, float eps) = 0;
  virtual void layer_norm_bwd(Tensor dx, Acc acc, Tensor dy, Tensor x, Tensor w, Tensor stat) = 0;

  // ---- linear.   y[N,O] = x[N,I] w[O,I]^T + b[O] + a[N,O].  Keeps x (for dw). b may be empty; and a, the residual stream.
  //   dx = dy w,   dw = dy^T x,   da = dy
  virtual void linear(Tensor y, Tensor x, Tensor w, Tensor b, Tensor a) = 0;
  virtual void linear_bwd_x(Tensor dx, Acc acc, Tensor dy, Tensor w) = 0;
  virtual void linear_bwd_w(Tensor dw, Acc acc, Tensor dy, Tensor x) = 0;
  // Both, dw first. A device that multiplies them in another precision converts their factors in scratch: u8, of the bytes that
  // linear_scratch() names for the shape and the gradients wanted; empty where that is 0.
  virtual void linear_bwd(Tensor dx, Acc acc_x, Tensor dw, Acc acc_w, Tensor dy, Tensor x, Tensor w, Tensor /*scratch*/) {
    linear_bwd_w(dw, acc_w, dy, x);
    linear_bwd_x(dx, acc_x, dy, w);
  }
  struct LinearShape {
    i64 rows, out, in;  // N, O, I
    bool dx, dw;
  };
  virtual i64 linear_scratch(const LinearShape&) const { return 0; }

  // ---- rotary position.   (y_i, y_j) = (x_i cos - x_j sin, x_j cos + x_i sin) for each pair of a head; position = row % T.
  //   table[T, rotary_dim] f32: cos of the pairs, then sin. Keeps nothing.
  //   Backward: the same rotation with -sin (its transpose).
  virtual void rope(Tensor y, Tensor x, Tensor table, const RopeShape& shape) = 0;
  virtual void rope_bwd(Tensor dx, Acc acc, Tensor dy, Tensor table, const RopeShape& shape) = 0;

  // ---- attention, a tile at a time.   s = scale * q k^T (softcapped, or with ALiBi: types.h; masked),
  //   p = exp(s - lse),  o = p v.  Query head h reads KV head h*K/H. q, o: [N, H*d]; k, v: [N, K*d]; lse, delta: [N,H] f32.
  //   Keeps q, k, v, o, lse.
  //   delta = rowsum(do o o),  dv = p^T do,  ds = p o (do v^T - delta) (o 1 - tanh^2 if capped),
  //   dq = scale ds k,  dk = scale ds^T q
  virtual void attention(Tensor o, Tensor lse, Tensor q, Tensor k, Tensor v, const AttentionShape& shape) = 0;
  virtual void attention_bwd(Tensor dq, Tensor dk, Tensor dv, Acc acc_q, Acc acc_k, Acc acc_v, Tensor delta, Tensor dout,
                             Tensor q, Tensor k, Tensor v, Tensor o, Tensor lse, const AttentionShape& shape) = 0;

  // ---- gated unit.   y = act(g) o u.   Keeps g, u.
  //   dg = dy o u o act'(g),   du = dy o act(g);   dg may be g, du may be u
  virtual void glu(Tensor y, Tensor g, Tensor u, Activation act) = 0;
  virtual void glu_bwd(Tensor dg, Tensor du, Acc acc_g, Acc acc_u, Tensor dy, Tensor g, Tensor u, Activation act) = 0;

  // ---- activation without a gate.   y = act(x).   Keeps x.   dx = dy o act'(x);   dx may be x
  virtual void act(Tensor y, Tensor x, Activation act) = 0;
  virtual void act_bwd(Tensor dx, Acc acc, Tensor dy, Tensor x, Activation act) = 0;

  // ---- some columns.   y[n, p*width + j] = x[n, p*period + first + j],   j < width.   Keeps nothing.
  //   dx is dy at those columns and 0 at the others.
  virtual void slice(Tensor y, Tensor x, const ColumnSlice& columns) = 0;
  virtual void slice_bwd(Tensor dx, Acc acc, Tensor dy, const ColumnSlice& columns) = 0;

  // ---- residual.   y = a + b.   Keeps nothing.   da = dy, db = dy
  virtual void add(Tensor y, Tensor a, Tensor b) = 0;
  virtual void add_bwd(Tensor da, Acc acc, Tensor dy) = 0;  // once for each of a, b

  // ---- soft limit of logits.   y = cap * tanh(x / cap).   Keeps y.   dx = dy o (1 - (y / cap)^2)
  virtual void softcap(Tensor y, Tensor x, float cap) = 0;
  virtual void softcap_bwd(Tensor dx, Acc acc, Tensor dy, Tensor y, float cap) = 0;

  // ---- a gate a token.   y[n] = sigmoid(g[n]) x[n],   g [N,1].   Keeps x, g.   With s = sigmoid(g):
  //   dx = s dy,   dg = s (1 - s) (dy . x)
  virtual void sigmoid_gate(Tensor y, Tensor x, Tensor g) = 0;
  virtual void sigmoid_gate_bwd(Tensor dx, Tensor dg, Acc acc_x, Acc acc_g, Tensor dy, Tensor x, Tensor g) = 0;

  // ---- mixture of experts. Each token chooses k of E experts; a choice c = n*k + j is a row of its own, and rows are sorted by
  // expert, then by choice: expert e has the rows bounds[e] .. bounds[e+1]. How many there are is known without asking: N*k.
  // Router:   p = softmax(z),   weights[n,j] = p of the j-th largest logit, of equal ones the first; normalized: over their sum.
  //   order i32 [3, N*k]: expert of each choice, row of each choice, choice of each row. bounds i32 [E+1]. seen i32 [E] grows by
  //   the rows of each expert. Keeps z, weights, order.   With t = sum_j weights[j] dweights[j], at the chosen experts only:
  //   dz = weights o (dweights - t) if normalized;   else dz = weights o dweights there, and - p t at all experts.
  virtual void route(Tensor weights, Tensor order, Tensor bounds, Tensor seen, Tensor z, bool normalized) = 0;
  virtual void route_bwd(Tensor dz, Acc acc, Tensor dweights, Tensor z, Tensor weights, Tensor order, bool normalized) = 0;
  // To the experts:   y[row of c] = x[c / k].   Keeps order.   dx[n] = sum_j dy[row of (n,j)]
  virtual void dispatch(Tensor y, Tensor x, Tensor order) = 0;
  virtual void dispatch_bwd(Tensor dx, Acc acc, Tensor dy, Tensor order) = 0;
  // Their linear: rows of expert e by its own weight w[e*O .. e*O+O, I].   y = x w[e]^T.   Keeps x (for dw), bounds.
  //   dx = dy w[e],   dw[e] = dy^T x over its rows: 0 without any
  virtual void expert_linear(Tensor y, Tensor x, Tensor w, Tensor bounds) = 0;
  virtual void expert_linear_bwd_x(Tensor dx, Acc acc, Tensor dy, Tensor w, Tensor bounds) = 0;
  virtual void expert_linear_bwd_w(Tensor dw, Acc acc, Tensor dy, Tensor x, Tensor bounds) = 0;
  // And back:   y[n] = sum_j weights[n,j] x[row of (n,j)].   Keeps x, weights, order.
  //   dx[row of c] = weights[c] dy[c / k],   dweights[c] = dy[c / k] . x[row of c]
  virtual void combine(Tensor y, Tensor x, Tensor weights, Tensor order) = 0;
  virtual void combine_bwd(Tensor dx, Tensor dweights, Acc acc_x, Acc acc_weights, Tensor dy, Tensor x, Tensor weights,
                           Tensor order) = 0;

  // ---- losses.
  // Squared error:   loss[step] += mean((y - target)^2) over the tokens that count;  dy = 2 (y - target).   dy may be y.
  //   dy is the gradient of the sum, not of the mean: SignRound uses only its sign: nothing can underflow. With skip_last the
  //   last of each T positions counts neither in loss nor in dy (no token follows it).
  //   That was the current micro-batch: `micro` moves on. With the last one of a step is_best = loss[step] < best, and then best
  //   and its step are updated (strictly lower: the first of equals stays).
  virtual void mse(Tensor dy, Tensor y, const Targets& targets, i64 tokens, bool skip_last, const TuningState& state) = 0;
  // Next token:   nll[n] = logsumexp(logits[n]) - logits[n, target[n]];  target i32; rows with target < 0 give 0.
  //   dlogits = softmax(logits) - onehot(target)
  virtual void cross_entropy(Tensor nll, Tensor logits, Tensor target) = 0;
  virtual void cross_entropy_bwd(Tensor dlogits, Tensor logits, Tensor target) = 0;

  // ---- quantize-dequantize, the heart of SignRound (formulas: ops/qdq_math.h, of scales of two levels: ops/qdq_super.h).
  //   wq = scale * (round(w/scale + v) [- zero])
  virtual void group_range(Tensor wmin, Tensor wmax, Tensor w, const QuantSpec& spec) = 0;
  virtual void qdq(Tensor wq, const QdqTensors& q, const QuantSpec& spec) = 0;
  // Its backward fused with the optimiser:   v -= lr sign(dv),  lo, hi = clamp(. - minmax_lr sign(d.), 0, most). There is no dv.
  // And with the next step's qdq: wq becomes that of the new v, lo, hi. Several weights, so that a device can step small ones
  // side by side.
  virtual void qdq_step(std::span<const QdqStep> weights, const TuningState& state) = 0;
  // A better start than the whole range: lo = hi = the factor with the least sum of h_j (wq_j - w_j)^2 over the group at v = 0,
  // of those that ops/qdq_math.h lists. h [I] f32, not negative: what an error in column j costs. Scales of one level alone.
  virtual void search_factors(const QdqTensors& q, Tensor h, const QuantSpec& spec) = 0;
  // Such an h, the squared error that 1 more in w_oj alone gives output o over all tokens:   h_j += sum of x_j^2 over rows of x
  virtual void column_squares(Tensor h, Tensor x) = 0;
  virtual void qdq_codes(const GridTensors& grid, const QdqTensors& q, const QuantSpec& spec) = 0;

  // ---- the loop's own steps.
  // y[b] = cache[order[micro * B + b]] for the current micro-batch; a sample is T rows.
  virtual void gather(Tensor y, Tensor cache, i64 tokens, const TuningState& state) = 0;
  virtual void keep_if_best(Tensor dst, Tensor src, const TuningState& state) = 0;  // dst = src if is_best
};

}  // namespace signround
