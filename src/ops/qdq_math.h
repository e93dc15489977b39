// Quantize-dequantize of one weight and of one group: the formulas that the CPU's and the GPU's kernels share, so that both
// choose the same integers and scales, to the bit.
//
// A group of weights w_i shares a grid of 2^b levels: a scale s and the code z that stands for 0. Learned are the rounding
// offsets v_i (from 0), and lo, hi in [0, most], the factors of the group's range wmin = min(0, min w), wmax = max(0, max w):
// from 1, with most = 1, so that the range can only shrink, or from where a search finds the least error (below), with most = 2.
//
//   mn = wmin lo,  mx = wmax hi,  Q = 2^b - 1,  M = 2^(b-1)
//   symmetric:   s = -mn/M if mx < -mn, else -mx/M             z = M
//                (the longer side gets the code 0, the one level that the other side lacks; hence s may be negative)
//   asymmetric:  s = (mx - mn)/Q                              z = round(-mn/s), held in [0, Q]
//   s is rounded to f16, and then |s| is held in [1e-5, 65504]: no group divides by zero or overflows.
//   r = round(w/s + v),   q = clamp(r, -z, Q - z),   wq = s q,   code = q + z         (all rounding is half to even)
// Where scales have two levels (qdq_super.h), an asymmetric grid has z = 0 and a minimum -o of its own instead:
//   r = round((w + o)/s + v),   q = clamp(r, 0, Q),   wq = s q - o                    (o is 0 everywhere else)
//
// Backward, g = d(loss)/d(wq), with d round(x)/dx := 1; a value held at a bound passes no gradient, one that equals it does.
//   m = 1 if -z <= r <= Q - z, else 0
//   dv = g s m,        S = sum g (q - m (w + o)/s) = d/ds at fixed z and o,        Z = sum g (1 - m) = -1/s d/dz = -d/do
//   symmetric:   ds = S:               if mx < -mn: dlo = -ds wmin/M, dhi = 0;   if mx > -mn: dlo = 0, dhi = -ds wmax/M;
//                                      if equal, half of each branch's, of the second: dlo = ds wmin/2M, dhi = -ds wmax/2M
//   asymmetric:  ds = S - Z mn/s:      dlo = -ds wmin/Q + Z wmin,   dhi = ds wmax/Q       (z = -mn/s is a path of its own)
//
// The search: of f = 1 and then f_k = k/64, k = 16..96, the first with the least sum h_i (wq_i - w_i)^2 at v = 0 and lo = hi = f.
// h_i is what an error of that weight costs: at few bits a finer grid that clips a few weights is better than the whole range.
//
// Everything is computed in f32 (T is double or Dual in tests), without fused multiply-adds and without branches. constexpr
// makes the functions callable from device code.
#pragma once
#include <array>
#include <bit>
#include <limits>

#include "ops/cpu/isa.h"
#include "ops/types.h"

namespace signround::SIGNROUND_ISA {

inline constexpr float kScaleMin = 168 * 0x1p-24f;  // 1e-5 as f16
inline constexpr float kScaleMax = 65504;           // the largest f16

// Nearest integer, ties to even, where it is below 2^22 (2^51): the adder rounds. Beyond, still far outside of any grid.
template <class T>
constexpr T nearest(T x) {
  constexpr T kShift = T(3) / (2 * std::numeric_limits<T>::epsilon());
  return (x + kShift) - kShift;
}

template <class T>
constexpr T nearest_f16(T x) { return static_cast<T>(static_cast<float>(f16(static_cast<float>(x)))); }

// x held in [low, high]; NaN becomes low.
template <class T>
constexpr T held(T x, T low, T high) {
  const T raised = x >= low ? x : low;
  return raised <= high ? raised : high;
}

// keep ? x : 0. For float by its bits: from a choice compilers make a branch around the arithmetic that uses it, and no vector
// code.
template <class T>
constexpr T masked(bool keep, T x) { return keep ? x : T(0); }
constexpr float masked(bool keep, float x) { return std::bit_cast<float>(std::bit_cast<u32>(x) & -static_cast<u32>(keep)); }

template <class T>
constexpr T sign(T x) { return T(static_cast<int>(x > T(0)) - static_cast<int>(x < T(0))); }

// The range of a group: its bounds and their learned factors.
template <class T>
struct Range {
  T wmin, wmax, lo, hi;
  constexpr T mn() const { return wmin * lo; }
  constexpr T mx() const { return wmax * hi; }
};

template <class T>
struct Grid {
  T scale, offset, zero, levels;  // s, o, z, Q
  bool scale_free, zero_free;  // not held at a bound: their gradients pass
};

// The scale that the range asks for, before any rounding.
template <class T>
constexpr T scale_of(const Range<T>& range, const QuantSpec& spec) {
  const T mn = range.mn(), mx = range.mx(), levels = T((1 << spec.bits) - 1), middle = T(1 << (spec.bits - 1));
  return !spec.symmetric ? (mx - mn) / levels : mx < -mn ? -mn / middle : -mx / middle;
}

// x rounded to f16, its size held in [least, kScaleMax].
template <class T>
struct Scale {
  T value;
  bool free;  // not held
};
template <class T>
constexpr Scale<T> half_scale(T x, float least) {
  const T raw = nearest_f16(x);
  const T size = held(raw < T(0) ? -raw : raw, T(least), T(kScaleMax));
  const T value = raw < T(0) ? -size : size;
  return {value, value == raw};
}

template <class T>
constexpr Grid<T> grid_of(const Range<T>& range, const QuantSpec& spec) {
  const T levels = T((1 << spec.bits) - 1), middle = T(1 << (spec.bits - 1));
  const Scale<T> scale = half_scale(scale_of(range, spec), kScaleMin);
  const T offset = spec.symmetric ? middle : nearest(-range.mn() / scale.value);
  const T zero = held(offset, T(0), levels);
  return {scale.value, T(0), zero, levels, scale.free, zero == offset};
}

// One weight on its grid.
template <class T>
struct Level {
  T ratio, r, q;  // (w + o)/s, the nearest level of the unbounded grid, that of [-z, Q - z]; m is r == q
};
template <class T>
constexpr Level<T> level_at(T ratio, T v, const Grid<T>& grid) {
  const T r = nearest(ratio + v);
  const T q = held(r, -grid.zero, grid.levels - grid.zero);
  return {ratio, r, q};
}
template <class T>
constexpr Level<T> level_of(T w, T v, const Grid<T>& grid) { return level_at((w + grid.offset) / grid.scale, v, grid); }
template <class T>
constexpr T value_of(const Level<T>& level, const Grid<T>& grid) { return grid.scale * level.q - grid.offset; }

// What one weight's gradient g adds: its own dv, and its terms of the sums S and Z.
template <class T>
struct Terms {
  T dv, s, z;
};
template <class T>
constexpr Terms<T> terms_of(T g, const Level<T>& level, const Grid<T>& grid) {
  const T inside = masked(level.q == level.r, g);
  return {inside * grid.scale, g * level.q - inside * level.ratio, g - inside};
}

// {d(loss)/d(lo), d(loss)/d(hi)} from ds, the gradient of scale_of(), and z, that of -mn by a path of its own.
template <class T>
constexpr std::array<T, 2> ends_bwd(const Range<T>& range, T ds, T z, const QuantSpec& spec) {
  const T mn = range.mn(), mx = range.mx();
  if (spec.symmetric) {
    ds = ds / T(1 << (spec.bits - 1));
    if (mx < -mn) return {-ds * range.wmin, T(0)};
    if (mx > -mn) return {T(0), -ds * range.wmax};
    return {T(0.5) * ds * range.wmin, T(-0.5) * ds * range.wmax};
  }
  ds = ds / T((1 << spec.bits) - 1);
  return {z * range.wmin - ds * range.wmin, ds * range.wmax};
}

// The same from the sums S and Z of a grid of one level.
template <class T>
constexpr std::array<T, 2> range_bwd(const Range<T>& range, const Grid<T>& grid, T sum_s, T sum_z, const QuantSpec& spec) {
  const T z = grid.zero_free && !spec.symmetric ? sum_z : T(0);
  const T ds = spec.symmetric ? sum_s : sum_s - z * (range.mn() / grid.scale);
  return ends_bwd(range, grid.scale_free ? ds : T(0), z, spec);
}

// ---- The search. Its factors are exact; that of all ranges as they are is tried first.
inline constexpr int kFirstTrial = 16, kLastTrial = 96;
template <class T>
constexpr T trial_factor(int k) { return T(k) / T(64); }

// What one weight adds to the error of a grid that it is rounded to nearest on.
template <class T>
constexpr T error_of(T w, T h, const Grid<T>& grid) {
  const T off = value_of(level_of(w, T(0), grid), grid) - w;
  return h * (off * off);
}

// A factor and its error; of two, the first unless the second is better.
template <class T>
struct Trial {
  T factor, error;
};
template <class T>
constexpr Trial<T> better(const Trial<T>& first, const Trial<T>& second) { return second.error < first.error ? second : first; }

}  // namespace signround::SIGNROUND_ISA
