// The instruction set on the CPU: every method reads the types of its tensors once and calls the kernel of that name.
// T: activations, their gradients and, where it is not float, statistics and learned values. Weights may be f32, f16, bf16 or T.
#pragma once
#include <memory>

#include "ops/cpu/attention.h"
#include "ops/cpu/cpu_device.h"
#include "ops/cpu/embed.h"
#include "ops/cpu/experts.h"
#include "ops/cpu/loss.h"
#include "ops/cpu/matmul.h"
#include "ops/cpu/norm.h"
#include "ops/cpu/qdq.h"
#include "ops/cpu/rope.h"
#include "ops/cpu/slice.h"

namespace signround::SIGNROUND_ISA {

template <class T>
class CpuBackend final : public CpuDevice<T> {
 public:
  CpuBackend(Precision precision, std::string_view isa) : CpuDevice<T>(isa), precision_(precision) {}

  // ---- embedding
  void embed(Tensor y, Tensor ids, Tensor table, float scale) override {
    fits(y.rows() == ids.size() && y.cols() == table.cols(), "embed");
    with_type<T>(table, [&](const auto* rows) {
      SIGNROUND_ISA::embed(y.as<T>(), ids.as<i32>(), rows, y.rows(), y.cols(), table.rows(), T(scale));
    });
  }
  void embed_bwd(Tensor dtable, Tensor dy, Tensor ids, float scale) override {
    fits(dy.rows() == ids.size() && dy.cols() == dtable.cols(), "embed_bwd");
    SIGNROUND_ISA::embed_bwd(dtable.as<T>(), dy.as<T>(), ids.as<i32>(), dy.rows(), dy.cols(), dtable.rows(), T(scale));
  }

  void positions(Tensor y, i64 tokens, i64 offset) override {
    fits(tokens > 0 && y.size() % tokens == 0, "positions");
    SIGNROUND_ISA::positions(y.as<i32>(), y.size(), tokens, offset);
  }

  // ---- norms
  void rms(Tensor y, Tensor r, Tensor x, Tensor w, float eps, float p) override {
    fits(y.size() == x.size() && w.size() > 0 && x.size() % w.size() == 0 && r.size() == x.size() / w.size(), "rms");
    with_type<T>(w, [&](const auto* weight) {
      SIGNROUND_ISA::rms(y.as<T>(), r.as<T>(), x.as<T>(), weight, r.size(), w.size(), T(eps), T(p));
    });
  }
  void rms_bwd(Tensor dx, Acc acc, Tensor dy, Tensor x, Tensor w, Tensor r, float p) override {
    if (!dx) return;
    fits(dx.size() == x.size() && dy.size() == x.size() && r.size() * w.size() == x.size(), "rms_bwd");
    with_type<T>(w, [&](const auto* weight) {
      SIGNROUND_ISA::rms_bwd(dx.as<T>(), acc, dy.as<T>(), x.as<T>(), weight, r.as<T>(), r.size(), w.size(), T(p));
    });
  }

  void layer_norm(Tensor y, Tensor stat, Tensor x, Tensor w, Tensor b, float eps) override {
    fits(y.size() == x.size() && w.size() > 0 && x.size() % w.size() == 0 && stat.size() == 2 * (x.size() / w.size()) &&
             (!b || b.size() == w.size()), "layer_norm");
    with_type<T>(w, [&](const auto* weight) {
      with_type<T>(b ? b : w, [&](const auto* bias) {
        SIGNROUND_ISA::layer_norm(y.as<T>(), stat.as<T>(), x.as<T>(), weight, b ? bias : nullptr, stat.size() / 2, w.size(),
                                  T(eps));
      });
    });
  }
  void layer_norm_bwd(Tensor dx, Acc acc, Tensor dy, Tensor x, Tensor w, Tensor stat) override {
    if (!dx) return;
    fits(dx.size() == x.size() && dy.size() == x.size() && stat.size() * w.size() == 2 * x.size(), "layer_norm_bwd");
    with_type<T>(w, [&](const auto* weight) {
      SIGNROUND_ISA::layer_norm_bwd(dx.as<T>(), acc, dy.as<T>(), x.as<T>(), weight, stat.as<T>(), stat.size() / 2, w.size());
    });
  }

  // ---- linear
  void linear(Tensor y, Tensor x, Tensor w, Tensor b, Tensor a) override {
    fits(x.cols() == w.cols() && y.cols() == w.rows() && y.rows() == x.rows() && (!b || b.size() == w.rows()) &&
             (!a || a.size() == y.size()), "linear");
    with_type<T>(w, [&](const auto* weight) {
      product(y, row_major<T>(x.as<T>(), x.cols()), transposed(row_major(weight, w.cols())), x.cols(), Acc::set);
    });
    if (b) with_type<T>(b, [&](const auto* bias) { add_bias(y.as<T>(), bias, y.rows(), y.cols()); });
    if (a) add(y, a, y);
  }
  void linear_bwd_x(Tensor dx, Acc acc, Tensor dy, Tensor w) override {
    if (!dx) return;
    fits(dx.cols() == w.cols() && dy.cols() == w.rows() && dy.rows() == dx.rows(), "linear_bwd_x");
    with_type<T>(w, [&](const auto* weight) {
      product(dx, row_major<T>(dy.as<T>(), dy.cols()), row_major(weight, w.cols()), w.rows(), acc);
    });
  }
  void linear_bwd_w(Tensor dw, Acc acc, Tensor dy, Tensor x) override {
    if (!dw) return;
    fits(dw.cols() == x.cols() && dw.rows() == dy.cols() && dy.rows() == x.rows(), "linear_bwd_w");
    product(dw, transposed(row_major<T>(dy.as<T>(), dy.cols())), row_major<T>(x.as<T>(), x.cols()), x.rows(), acc);
  }

  // ---- rotary position
  void rope(Tensor y, Tensor x, Tensor table, const RopeShape& shape) override {
    fits_rope(y, x, table, shape);
    rotate(y.as<T>(), Acc::set, x.as<T>(), table.as<float>(), x.rows(), shape, 1);
  }
  void rope_bwd(Tensor dx, Acc acc, Tensor dy, Tensor table, const RopeShape& shape) override {
    if (!dx) return;
    fits_rope(dx, dy, table, shape);
    rotate(dx.as<T>(), acc, dy.as<T>(), table.as<float>(), dy.rows(), shape, -1);
  }

  // ---- attention
  void attention(Tensor o, Tensor lse, Tensor q, Tensor k, Tensor v, const AttentionShape& shape) override {
    fits_attention(o, lse, q, k, v, shape);
    SIGNROUND_ISA::attention(o.as<T>(), lse.as<T>(), q.as<T>(), k.as<T>(), v.as<T>(), shape);
  }
  void attention_bwd(Tensor dq, Tensor dk, Tensor dv, Acc acc_q, Acc acc_k, Acc acc_v, Tensor delta, Tensor dout, Tensor q,
                     Tensor k, Tensor v, Tensor o, Tensor lse, const AttentionShape& shape) override {
    fits_attention(o, lse, q, k, v, shape);
    fits((!dq || dq.size() == q.size()) && (!dk || dk.size() == k.size()) && (!dv || dv.size() == v.size()) &&
             delta.size() == lse.size() && dout.size() == o.size(), "attention_bwd");
    SIGNROUND_ISA::attention_bwd(wanted(dq), wanted(dk), wanted(dv), acc_q, acc_k, acc_v, delta.as<T>(), dout.as<T>(), q.as<T>(),
                                 k.as<T>(), v.as<T>(), o.as<T>(), lse.as<T>(), shape);
  }

  // ---- gated unit
  void glu(Tensor y, Tensor g, Tensor u, Activation act) override {
    fits(y.size() == g.size() && g.size() == u.size(), "glu");
    with_act(act, [&]<class Act>(Act) { SIGNROUND_ISA::glu<Act>(y.as<T>(), g.as<T>(), u.as<T>(), y.size()); });
  }
  void glu_bwd(Tensor dg, Tensor du, Acc acc_g, Acc acc_u, Tensor dy, Tensor g, Tensor u, Activation act) override {
    fits(dy.size() == g.size() && g.size() == u.size() && (!dg || dg.size() == g.size()) && (!du || du.size() == u.size()),
         "glu_bwd");
    with_act(act, [&]<class Act>(Act) {
      SIGNROUND_ISA::glu_bwd<Act>(wanted(dg), wanted(du), acc_g, acc_u, dy.as<T>(), g.as<T>(), u.as<T>(), dy.size());
    });
  }

  // ---- activation without a gate
  void act(Tensor y, Tensor x, Activation act) override {
    fits(y.size() == x.size(), "act");
    with_act(act, [&]<class Act>(Act) { SIGNROUND_ISA::act<Act>(y.as<T>(), x.as<T>(), y.size()); });
  }
  void act_bwd(Tensor dx, Acc acc, Tensor dy, Tensor x, Activation act) override {
    if (!dx) return;
    fits(dx.size() == x.size() && dy.size() == x.size(), "act_bwd");
    with_act(act, [&]<class Act>(Act) { SIGNROUND_ISA::act_bwd<Act>(dx.as<T>(), acc, dy.as<T>(), x.as<T>(), dx.size()); });
  }

  // ---- some columns
  void slice(Tensor y, Tensor x, const ColumnSlice& columns) override {
    fits_slice(y, x, columns);
    SIGNROUND_ISA::slice(y.as<T>(), x.as<T>(), x.size() / columns.period, columns);
  }
  void slice_bwd(Tensor dx, Acc acc, Tensor dy, const ColumnSlice& columns) override {
    if (!dx) return;
    fits_slice(dy, dx, columns);
    SIGNROUND_ISA::slice_bwd(dx.as<T>(), acc, dy.as<T>(), dx.size() / columns.period, columns);
  }

  // ---- residual
  void add(Tensor y, Tensor a, Tensor b) override {
    fits(y.size() == a.size() && a.size() == b.size(), "add");
    SIGNROUND_ISA::add(y.as<T>(), a.as<T>(), b.as<T>(), y.size());
  }
  void add_bwd(Tensor da, Acc acc, Tensor dy) override {
    if (!da) return;
    fits(da.size() == dy.size(), "add_bwd");
    SIGNROUND_ISA::add_bwd(da.as<T>(), acc, dy.as<T>(), dy.size());
  }

  // ---- soft limit
  void softcap(Tensor y, Tensor x, float cap) override {
    fits(y.size() == x.size() && cap > 0, "softcap");
    SIGNROUND_ISA::softcap(y.as<T>(), x.as<T>(), T(cap), y.size());
  }
  void softcap_bwd(Tensor dx, Acc acc, Tensor dy, Tensor y, float cap) override {
    if (!dx) return;
    fits(dx.size() == y.size() && dy.size() == y.size() && cap > 0, "softcap_bwd");
    SIGNROUND_ISA::softcap_bwd(dx.as<T>(), acc, dy.as<T>(), y.as<T>(), T(cap), y.size());
  }

  // ---- a gate a token
  void sigmoid_gate(Tensor y, Tensor x, Tensor g) override {
    fits(y.size() == x.size() && g.size() == x.rows(), "sigmoid_gate");
    SIGNROUND_ISA::sigmoid_gate(y.as<T>(), x.as<T>(), g.as<T>(), x.rows(), x.cols());
  }
  void sigmoid_gate_bwd(Tensor dx, Tensor dg, Acc acc_x, Acc acc_g, Tensor dy, Tensor x, Tensor g) override {
    fits(dy.size() == x.size() && g.size() == x.rows() && (!dx || dx.size() == x.size()) && (!dg || dg.size() == g.size()),
         "sigmoid_gate_bwd");
    SIGNROUND_ISA::sigmoid_gate_bwd(wanted(dx), wanted(dg), acc_x, acc_g, dy.as<T>(), x.as<T>(), g.as<T>(), x.rows(), x.cols());
  }

  // ---- mixture of experts
  void route(Tensor weights, Tensor order, Tensor bounds, Tensor seen, Tensor z, bool normalized) override {
    fits_order(weights, order, "route");
    fits(z.rows() == weights.rows() && z.cols() >= weights.cols() && bounds.size() == z.cols() + 1 && seen.size() == z.cols(),
         "route");
    choose(weights.as<T>(), order.as<i32>(), z.as<T>(), z.rows(), z.cols(), weights.cols(), normalized);
    sort_choices(order.as<i32>(), bounds.as<i32>(), seen.as<i32>(), weights.size(), z.cols());
  }
  void route_bwd(Tensor dz, Acc acc, Tensor dweights, Tensor z, Tensor weights, Tensor order, bool normalized) override {
    if (!dz) return;
    fits_order(weights, order, "route_bwd");
    fits(dz.size() == z.size() && z.rows() == weights.rows() && dweights.size() == weights.size(), "route_bwd");
    SIGNROUND_ISA::route_bwd(dz.as<T>(), acc, dweights.as<T>(), z.as<T>(), weights.as<T>(), order.as<i32>(), z.rows(), z.cols(),
                             weights.cols(), normalized);
  }
  void dispatch(Tensor y, Tensor x, Tensor order) override {
    fits(order.size() == 3 * y.rows() && y.cols() == x.cols() && x.rows() > 0 && y.rows() % x.rows() == 0, "dispatch");
    SIGNROUND_ISA::dispatch(y.as<T>(), x.as<T>(), order.as<i32>(), x.rows(), y.rows() / x.rows(), x.cols());
  }
  void dispatch_bwd(Tensor dx, Acc acc, Tensor dy, Tensor order) override {
    if (!dx) return;
    fits(order.size() == 3 * dy.rows() && dy.cols() == dx.cols() && dx.rows() > 0 && dy.rows() % dx.rows() == 0, "dispatch_bwd");
    SIGNROUND_ISA::dispatch_bwd(dx.as<T>(), acc, dy.as<T>(), order.as<i32>(), dx.rows(), dy.rows() / dx.rows(), dx.cols());
  }
  void expert_linear(Tensor y, Tensor x, Tensor w, Tensor bounds) override {
    each_expert(x, w, bounds, [&](i64 first, i64 count, Tensor own) {
      linear(y.slice(first, count), x.slice(first, count), own, {}, {});
    });
  }
  void expert_linear_bwd_x(Tensor dx, Acc acc, Tensor dy, Tensor w, Tensor bounds) override {
    if (!dx) return;
    each_expert(dx, w, bounds, [&](i64 first, i64 count, Tensor own) {
      linear_bwd_x(dx.slice(first, count), acc, dy.slice(first, count), own);
    });
  }
  void expert_linear_bwd_w(Tensor dw, Acc acc, Tensor dy, Tensor x, Tensor bounds) override {
    if (!dw) return;
    each_expert(x, dw, bounds, [&](i64 first, i64 count, Tensor own) {
      linear_bwd_w(own, acc, dy.slice(first, count), x.slice(first, count));
    });
  }
  void combine(Tensor y, Tensor x, Tensor weights, Tensor order) override {
    fits_order(weights, order, "combine");
    fits(x.rows() == weights.size() && y.rows() == weights.rows() && x.cols() == y.cols(), "combine");
    SIGNROUND_ISA::combine(y.as<T>(), x.as<T>(), weights.as<T>(), order.as<i32>(), y.rows(), weights.cols(), y.cols());
  }
  void combine_bwd(Tensor dx, Tensor dweights, Acc acc_x, Acc acc_weights, Tensor dy, Tensor x, Tensor weights,
                   Tensor order) override {
    fits_order(weights, order, "combine_bwd");
    fits(x.rows() == weights.size() && dy.rows() == weights.rows() && x.cols() == dy.cols() && (!dx || dx.size() == x.size()) &&
             (!dweights || dweights.size() == weights.size()), "combine_bwd");
    SIGNROUND_ISA::combine_bwd(wanted(dx), wanted(dweights), acc_x, acc_weights, dy.as<T>(), x.as<T>(), weights.as<T>(),
                               order.as<i32>(), dy.rows(), weights.cols(), x.cols());
  }

  // ---- losses
  void mse(Tensor dy, Tensor y, const Targets& targets, i64 tokens, bool skip_last, const TuningState& state) override {
    fits(targets.fit(dy, y, tokens), "mse");
    const TargetRows<T> target(targets, y.rows(), tokens, state);
    add_loss(SIGNROUND_ISA::mse(dy.as<T>(), y.as<T>(), target, y.rows(), y.cols(), tokens, skip_last), state);
  }
  void cross_entropy(Tensor nll, Tensor logits, Tensor target) override {
    fits(nll.size() == logits.rows() && target.size() == logits.rows(), "cross_entropy");
    SIGNROUND_ISA::cross_entropy(nll.as<T>(), logits.as<T>(), target.as<i32>(), logits.rows(), logits.cols());
  }
  void cross_entropy_bwd(Tensor dlogits, Tensor logits, Tensor target) override {
    fits(dlogits.size() == logits.size() && target.size() == logits.rows(), "cross_entropy_bwd");
    SIGNROUND_ISA::cross_entropy_bwd(dlogits.as<T>(), logits.as<T>(), target.as<i32>(), logits.rows(), logits.cols());
  }

  // ---- quantize-dequantize
  void group_range(Tensor wmin, Tensor wmax, Tensor w, const QuantSpec& spec) override {
    fits(wmin.size() == w.rows() * spec.groups(w.cols()) && wmax.size() == wmin.size(), "group_range");
    with_type<T>(w, [&](const auto* p) {
      SIGNROUND_ISA::group_range(wmin.as<T>(), wmax.as<T>(), p, w.rows(), w.cols(), spec);
    });
  }
  void qdq(Tensor wq, const QdqTensors& q, const QuantSpec& spec) override {
    fits(wq.size() == q.w.size() && wq.dtype == q.w.dtype, "qdq");
    with_learned(q, spec, [&]<class W>(const Learned<T, W>& p) {
      SIGNROUND_ISA::qdq(wq.as<W>(), p, q.w.rows(), q.w.cols(), spec);
    });
  }
  void qdq_step(std::span<const QdqStep> weights, const TuningState& state) override {
    const T lr = T(at_step<float>(state.lr, state)), minmax_lr = T(at_step<float>(state.minmax_lr, state));
    for (const QdqStep& s : weights) {
      const Tensor w = s.q.w;
      fits(s.dwq.size() == w.size() && s.wq.size() == w.size() && s.wq.dtype == w.dtype, "qdq_step");
      with_learned(s.q, s.spec, [&]<class W>(const Learned<T, W>& p) {
        SIGNROUND_ISA::qdq_step(s.wq.as<W>(), p, s.dwq.as<T>(), w.rows(), w.cols(), s.spec, lr, minmax_lr, T(s.most));
      });
    }
  }
  void search_factors(const QdqTensors& q, Tensor h, const QuantSpec& spec) override {
    fits(h.size() == q.w.cols() && !spec.two_levels(), "search_factors");
    with_learned(q, spec, [&]<class W>(const Learned<T, W>& p) {
      SIGNROUND_ISA::search_factors(p, h.as<T>(), q.w.rows(), q.w.cols(), spec);
    });
  }
  void column_squares(Tensor h, Tensor x) override {
    fits(h.size() == x.cols(), "column_squares");
    SIGNROUND_ISA::column_squares(h.as<T>(), x.as<T>(), x.rows(), x.cols());
  }
  void qdq_codes(const GridTensors& grid, const QdqTensors& q, const QuantSpec& spec) override {
    fits(fits_grid(grid, q.w, spec), "qdq_codes");
    with_learned(q, spec, [&]<class W>(const Learned<T, W>& p) {
      const GridPointers out{static_cast<u8*>(grid.codes.data), grid.scale.as<f16>(), static_cast<u8*>(grid.zero.data),
                             static_cast<i8*>(grid.factor.data), static_cast<f16*>(grid.offset.data)};
      SIGNROUND_ISA::qdq_codes(out, p, q.w.rows(), q.w.cols(), spec);
    });
  }

  // ---- the loop's own steps
  void gather(Tensor y, Tensor cache, i64 tokens, const TuningState& state) override {
    fits(tokens > 0 && y.cols() == cache.cols() && y.rows() % tokens == 0, "gather");
    with_type<T>(cache, [&](const auto* from) {
      SIGNROUND_ISA::gather(y.as<T>(), from, y.rows(), y.cols(), tokens, cache.rows(), state);
    });
  }
  void keep_if_best(Tensor dst, Tensor src, const TuningState& state) override {
    if (state.now()->is_best) this->copy(dst, src);
  }

 private:
  static T* wanted(Tensor gradient) { return gradient ? gradient.as<T>() : nullptr; }

  // out [m, n] = or += a [m, k] b [k, n]
  template <class L, class R>
  void product(Tensor out, Factor<L> a, Factor<R> b, i64 k, Acc acc) {
    const i64 m = out.rows(), n = out.cols();
    if constexpr (std::is_same_v<T, float>)
      if (precision_ == Precision::bf16) return matmul<Precision::bf16>(out.as<T>(), n, a, b, m, n, k, acc);
    matmul<Precision::f32>(out.as<T>(), n, a, b, m, n, k, acc);
  }

  static void fits_order(Tensor weights, Tensor order, std::string_view op) {
    fits(weights.cols() > 0 && order.size() == 3 * weights.size(), op);
  }

  // f(first row, rows, its part of w) for every expert.
  template <class F>
  static void each_expert(Tensor rows, Tensor w, Tensor bounds, F f) {
    const i64 experts = bounds.size() - 1;
    const i32* bound = bounds.as<i32>();
    fits(experts > 0 && w.rows() % experts == 0 && bound[0] == 0 && bound[experts] == rows.rows(), "expert_linear");
    for (i64 e = 0; e < experts; ++e) f(bound[e], bound[e + 1] - bound[e], w.slice(w.rows() / experts * e, w.rows() / experts));
  }

  static void fits_attention(Tensor o, Tensor lse, Tensor q, Tensor k, Tensor v, const AttentionShape& s) {
    const i64 rows = s.batch * s.tokens;
    fits(o.size() == q.size() && q.size() == rows * s.heads * s.head_dim && k.size() == rows * s.kv_heads * s.head_dim &&
             v.size() == k.size() && lse.size() == rows * s.heads && s.kv_heads > 0 && s.heads % s.kv_heads == 0, "attention");
  }

  static void fits_slice(Tensor part, Tensor whole, const ColumnSlice& s) {
    fits(s.width > 0 && s.first >= 0 && s.first + s.width <= s.period && whole.cols() % s.period == 0 &&
             whole.size() / s.period * s.width == part.size(), "slice");
  }

  static void fits_rope(Tensor to, Tensor from, Tensor table, const RopeShape& s) {
    fits(to.size() == from.size() && from.cols() == s.heads * s.head_dim && s.rotary_dim % 2 == 0 && s.rotary_dim <= s.head_dim &&
             s.tokens > 0 && table.size() == s.tokens * s.rotary_dim, "rope");
  }

  template <class F>
  static void with_learned(const QdqTensors& q, const QuantSpec& spec, F&& f) {
    const i64 groups = q.w.rows() * spec.groups(q.w.cols());
    fits(q.v.size() == q.w.size() && q.wmin.size() == groups && q.wmax.size() == groups && q.lo.size() == groups &&
             q.hi.size() == groups && fits_spec(spec, q.w.cols()), "qdq");
    with_type<T>(q.w, [&]<class W>(W* w) {
      f(Learned<T, W>{w, q.wmin.as<T>(), q.wmax.as<T>(), q.v.as<T>(), q.lo.as<T>(), q.hi.as<T>()});
    });
  }

  Precision precision_;
};

}  // namespace signround::SIGNROUND_ISA
