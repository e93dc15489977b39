// Scales of two levels, those of K-quants: 256 weights of a row, a super-block, share two f16 numbers d and e; each of its groups
// k has an integer c_k for its scale and, if asymmetric, an integer n_k for its minimum.
//
// With s_k the scale that the group's range asks for and o_k = -mn_k >= 0 (qdq_math.h), a = scale_bits:
//   symmetric:   U = -2^(a-1),   d = f16(p/U), p the s_k of the largest size (of two, the positive one; of equals, the first)
//                c_k = round(s_k/d) in [-2^(a-1), 2^(a-1) - 1]
//   asymmetric:  U = 2^a - 1,    d = f16(p/U), p = max s_k;     c_k = round(s_k/d) in [1, U]
//                                e = f16(t/U), t = max o_k;     n_k = round(o_k/e) in [0, U],   o = e n_k
//   s = d c_k;  d and e are held in [2^-24, 65504] in size, and c_k is never 0, but 1 or, if s_k/d < 0, -1: no group divides by
//   zero, and nothing is lost, for the weights have a code for 0 themselves.
//
// It is the grid of the weights over again, one level up: its formulas hold with s_k for w_i, d for s, no offset to learn, and
// G_k = S of group k for g_i. Backward, m_k = 1 if c_k was not held:
//   D = sum G_k (c_k - m_k s_k/d) = d/dd,       ds_k = m_k G_k  + (D/U for the group that p is of, if d was not held)
//   likewise for o_k, with -Z of group k for G_k;      from ds_k and do_k the chain to lo and hi is that of one level.
// The sums over k run in sixteen lanes.
#pragma once
#include "ops/qdq_math.h"

namespace signround::SIGNROUND_ISA {

inline constexpr float kStepMin = 0x1p-24f;  // the least f16 above 0

// The number that decides a step, and the group that it is of.
template <class T>
struct Pivot {
  T value;
  int group;
};
// Of two the one that decides; in any order over many.
template <class T>
constexpr Pivot<T> farther(const Pivot<T>& a, const Pivot<T>& b, bool symmetric) {
  const T x = symmetric && a.value < T(0) ? -a.value : a.value, y = symmetric && b.value < T(0) ? -b.value : b.value;
  if (x != y) return x > y ? a : b;
  if (a.value != b.value) return a.value > b.value ? a : b;
  return a.group < b.group ? a : b;
}

// d or e of a super-block.
template <class T>
struct Step {
  T value, unit;
  int pivot;
  bool free;
};
template <class T>
constexpr Step<T> step_of(const Pivot<T>& pivot, const QuantSpec& spec) {
  const T unit = spec.symmetric ? -T(1 << (spec.scale_bits - 1)) : T((1 << spec.scale_bits) - 1);
  const Scale<T> step = half_scale(pivot.value / unit, kStepMin);
  return {step.value, unit, pivot.group, step.free};
}

// The multiples c_k of d and n_k of e, as q.
template <class T>
constexpr Level<T> scale_level(T scale, const Step<T>& step, const QuantSpec& spec) {
  const T ratio = scale / step.value, r = nearest(ratio);
  if (!spec.symmetric) return {ratio, r, held(r, T(1), step.unit)};
  return {ratio, r, ratio < T(0) ? held(r, step.unit, T(-1)) : held(r, T(1), -step.unit - T(1))};
}
template <class T>
constexpr Level<T> offset_level(T offset, const Step<T>& step) {
  const T ratio = offset / step.value, r = nearest(ratio);
  return {ratio, r, held(r, T(0), step.unit)};
}

// The grid of a group's weights.
template <class T>
constexpr Grid<T> grid_of(const Level<T>& c, const Step<T>& d, T offset, const QuantSpec& spec) {
  return {d.value * c.q, offset, spec.symmetric ? T(1 << (spec.bits - 1)) : T(0), T((1 << spec.bits) - 1), true, true};
}

// What a group's gradient G adds: to its own s_k, and to D.
template <class T>
struct StepTerms {
  T own, step;
};
template <class T>
constexpr StepTerms<T> step_terms(T g, const Level<T>& level) {
  const T own = masked(level.q == level.r, g);
  return {own, g * level.q - own * level.ratio};
}
template <class T>
constexpr T with_pivot(T own, T sum, const Step<T>& step, int group) {
  return own + masked(step.free && group == step.pivot, sum / step.unit);
}

}  // namespace signround::SIGNROUND_ISA
