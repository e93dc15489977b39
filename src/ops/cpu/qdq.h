// Quantize-dequantize and its backward: what SignRound adds to a linear (arXiv 2309.05516, in the form of auto-round).
//
// A group of weights w_i shares a grid of 2^b levels: a scale s and the code z that stands for 0. Learned are the offsets v_i of
// rounding (from 0), and lo, hi in [0,1] (from 1), which shrink the group's range wmin = min(0, min w), wmax = max(0, max w).
//
//   mn = wmin lo,  mx = wmax hi,  Q = 2^b - 1,  M = 2^(b-1)
//   symmetric:   s = -mn/M if mx < -mn, else -mx/M             z = M
//                (the longer side gets the code 0, the one level that the other side lacks; hence s may be negative)
//   asymmetric:  s = (mx - mn)/Q                              z = round(-mn/s), held in [0, Q]
//   s is rounded to f16, and then |s| is held in [1e-5, 65504]: no group divides by zero or overflows.
//   r = round(w/s + v),   q = clamp(r, -z, Q - z),   wq = s q,   code = q + z         (all rounding is half to even)
//
// Backward, g = d(loss)/d(wq), with d round(x)/dx := 1; a value held at a bound passes no gradient, one that equals it does.
//   m = 1 if -z <= r <= Q - z, else 0
//   dv = g s m,        S = sum g (q - m w/s) = d/ds at fixed z,        Z = sum g (1 - m) = -1/s d/dz
//   symmetric:   ds = S:               if mx < -mn: dlo = -ds wmin/M, dhi = 0;   if mx > -mn: dlo = 0, dhi = -ds wmax/M;
//                                      if equal, half of each branch's, of the second: dlo = ds wmin/2M, dhi = -ds wmax/2M
//   asymmetric:  ds = S - Z mn/s:      dlo = -ds wmin/Q + Z wmin,   dhi = ds wmax/Q       (z = -mn/s is a path of its own)
// Step:  v -= lr sign(dv),  lo = clamp(lo - minmax_lr sign(dlo), 0, 1), hi likewise;  sign(0) = sign(NaN) = 0.
//
// Everything is computed in f32, in an order that is the same on every processor; so are the results, to the bit.
#pragma once
#include <array>
#include <bit>
#include <limits>

#include "base/threads.h"
#include "ops/cpu/lanes.h"
#include "ops/ops.h"

namespace signround::SIGNROUND_ISA {

inline constexpr float kScaleMin = 168 * 0x1p-24f;  // 1e-5 as f16
inline constexpr float kScaleMax = 65504;           // the largest f16

// Nearest integer, ties to even, where it is below 2^22 (2^51): the adder rounds. Beyond, still far outside of any grid.
template <class T>
inline T nearest(T x) {
  constexpr T kShift = T(3) / (2 * std::numeric_limits<T>::epsilon());
  return (x + kShift) - kShift;
}

template <class T>
inline T nearest_f16(T x) { return static_cast<T>(static_cast<float>(f16(static_cast<float>(x)))); }

// x held in [low, high]; NaN becomes low.
template <class T>
inline T held(T x, T low, T high) {
  const T raised = x >= low ? x : low;
  return raised <= high ? raised : high;
}

// keep ? x : 0. For float by its bits: of a choice compilers make a branch around the arithmetic that uses it, not vector code.
template <class T>
inline T masked(bool keep, T x) { return keep ? x : T(0); }
inline float masked(bool keep, float x) { return std::bit_cast<float>(std::bit_cast<u32>(x) & -static_cast<u32>(keep)); }

// The range of a group: its bounds and their learned factors.
template <class T>
struct Range {
  T wmin, wmax, lo, hi;
  T mn() const { return wmin * lo; }
  T mx() const { return wmax * hi; }
};

template <class T>
struct Grid {
  T scale, zero, levels;  // s, z, Q
  bool scale_free, zero_free;  // not held at a bound: their gradients pass
};

template <class T>
inline Grid<T> grid_of(const Range<T>& range, const QuantSpec& spec) {
  const T mn = range.mn(), mx = range.mx(), levels = T((1 << spec.bits) - 1), middle = T(1 << (spec.bits - 1));
  const T raw = nearest_f16(!spec.symmetric ? (mx - mn) / levels : mx < -mn ? -mn / middle : -mx / middle);
  const T size = held(raw < T(0) ? -raw : raw, T(kScaleMin), T(kScaleMax));
  const T scale = raw < T(0) ? -size : size;
  const T offset = spec.symmetric ? middle : nearest(-mn / scale);
  const T zero = held(offset, T(0), levels);
  return {scale, zero, levels, scale == raw, zero == offset};
}

// One weight on its grid. (Written without branches: a loop over it vectorises.)
template <class T>
struct Level {
  T ratio, r, q;  // w/s, the nearest level of the unbounded grid, that of [-z, Q - z]; m is r == q
};
template <class T>
inline Level<T> level_of(T w, T v, const Grid<T>& grid) {
  const T ratio = w / grid.scale;
  const T r = nearest(ratio + v);
  const T q = held(r, -grid.zero, grid.levels - grid.zero);
  return {ratio, r, q};
}

// Weights that are worked on at a time, so that what is between them and their conversions stays in the first cache.
inline constexpr i64 kPiece = 256;

// f(first, n) for the pieces of n weights.
template <class F>
inline void for_pieces(i64 n, F f) {
  for (i64 first = 0; first < n; first += kPiece) f(first, n - first < kPiece ? n - first : kPiece);
}

template <class T, class W>
inline void group_qdq(W* wq, const W* w, const T* v, i64 n, const Grid<T>& grid) {
  for_pieces(n, [&](i64 first, i64 count) {
    T wide[kPiece], out[kPiece];
    const T* x = as(wide, w + first, count);
    for (i64 i = 0; i < count; ++i) out[i] = grid.scale * level_of(x[i], v[first + i], grid).q;
    cast_all(wq + first, out, count);
  });
}

template <class T, class W>
inline void group_codes(u8* codes, const W* w, const T* v, i64 n, const Grid<T>& grid) {
  for (i64 i = 0; i < n; ++i)
    codes[i] = static_cast<u8>(static_cast<int>(static_cast<float>(level_of(cast<T>(w[i]), v[i], grid).q + grid.zero)));
}

// {d(loss)/d(lo), d(loss)/d(hi)} from the sums S and Z.
template <class T>
inline std::array<T, 2> range_bwd(const Range<T>& range, const Grid<T>& grid, T sum_s, T sum_z, const QuantSpec& spec) {
  const T mn = range.mn(), mx = range.mx();
  if (spec.symmetric) {
    const T ds = grid.scale_free ? sum_s / T(1 << (spec.bits - 1)) : T(0);
    if (mx < -mn) return {-ds * range.wmin, T(0)};
    if (mx > -mn) return {T(0), -ds * range.wmax};
    return {T(0.5) * ds * range.wmin, T(-0.5) * ds * range.wmax};
  }
  const T z = grid.zero_free ? sum_z : T(0);
  const T ds = grid.scale_free ? (sum_s - z * (mn / grid.scale)) / grid.levels : T(0);
  return {z * range.wmin - ds * range.wmin, ds * range.wmax};
}

// The gradients of one group: {dlo, dhi} are returned; dv goes to use(i, n, dv), piece by piece: dv[0..n) belongs to v[i..i+n).
template <class T, class W, class Use>
inline std::array<T, 2> group_bwd(const T* g, const W* w, const T* v, i64 n, const Range<T>& range, const QuantSpec& spec,
                                  Use use) {
  const Grid<T> grid = grid_of(range, spec);
  RunningSum<T> sum_s, sum_z;
  for_pieces(n, [&](i64 first, i64 count) {
    T wide[kPiece], dv[kPiece], s[kPiece], z[kPiece];
    const T* x = as(wide, w + first, count);
    for (i64 i = 0; i < count; ++i) {
      const T gradient = g[first + i];
      const Level<T> level = level_of(x[i], v[first + i], grid);
      const T inside = masked(level.q == level.r, gradient);
      dv[i] = inside * grid.scale;
      s[i] = gradient * level.q - inside * level.ratio;
      z[i] = gradient - inside;
    }
    sum_s.add(s, count);
    sum_z.add(z, count);
    use(first, count, dv);
  });
  return range_bwd(range, grid, sum_s.total(), sum_z.total(), spec);
}

template <class T>
inline T sign(T x) { return T(static_cast<int>(x > T(0)) - static_cast<int>(x < T(0))); }

template <class T, class W>
inline void group_step(const T* g, const W* w, T* v, i64 n, T* lo, T* hi, const Range<T>& range, T lr, T minmax_lr,
                       const QuantSpec& spec) {
  const std::array<T, 2> d = group_bwd(g, w, v, n, range, spec, [&](i64 first, i64 count, const T* dv) {
    for (i64 i = 0; i < count; ++i) v[first + i] -= lr * sign(dv[i]);
  });
  *lo = held(range.lo - minmax_lr * sign(d[0]), T(0), T(1));
  *hi = held(range.hi - minmax_lr * sign(d[1]), T(0), T(1));
}

// ---- Whole tensors: [rows, cols] weights in groups of `spec.group` columns, the last of a row perhaps shorter. A task is some
// rows; f(group, at, n) is called for each of their groups: its index, the index of its first weight, how many weights it has.
template <class F>
inline void for_groups(i64 rows, i64 cols, const QuantSpec& spec, F f) {
  const i64 group = spec.group_of(cols), groups = spec.groups(cols);
  parallel_ranges(rows, 1 + (1 << 15) / (cols + 1), [&](i64 first, i64 last) {
    for (i64 row = first; row < last; ++row)
      for (i64 k = 0; k < groups; ++k) {
        const i64 at = k * group;
        f(row * groups + k, row * cols + at, cols - at < group ? cols - at : group);
      }
  });
}

template <class T, class W>
void group_range(T* wmin, T* wmax, const W* w, i64 rows, i64 cols, const QuantSpec& spec) {
  for_groups(rows, cols, spec, [&](i64 group, i64 at, i64 n) {
    wmin[group] = -lane_max(n, T(0), [&](i64 i) { return -cast<T>(w[at + i]); });
    wmax[group] = lane_max(n, T(0), [&](i64 i) { return cast<T>(w[at + i]); });
  });
}

// The learned tensors of one linear, typed.
template <class T, class W>
struct Learned {
  const W* w;
  const T *wmin, *wmax;
  T *v, *lo, *hi;
  Range<T> range(i64 group) const { return {wmin[group], wmax[group], lo[group], hi[group]}; }
};

template <class T, class W>
void qdq(W* wq, const Learned<T, W>& p, i64 rows, i64 cols, const QuantSpec& spec) {
  for_groups(rows, cols, spec, [&](i64 group, i64 at, i64 n) {
    group_qdq(wq + at, p.w + at, p.v + at, n, grid_of(p.range(group), spec));
  });
}

template <class T, class W>
void qdq_step(const Learned<T, W>& p, const T* dwq, i64 rows, i64 cols, const QuantSpec& spec, T lr, T minmax_lr) {
  for_groups(rows, cols, spec, [&](i64 group, i64 at, i64 n) {
    group_step(dwq + at, p.w + at, p.v + at, n, p.lo + group, p.hi + group, p.range(group), lr, minmax_lr, spec);
  });
}

template <class T, class W>
void qdq_codes(u8* codes, f16* scale, u8* zero, const Learned<T, W>& p, i64 rows, i64 cols, const QuantSpec& spec) {
  for_groups(rows, cols, spec, [&](i64 group, i64 at, i64 n) {
    const Grid<T> grid = grid_of(p.range(group), spec);
    group_codes(codes + at, p.w + at, p.v + at, n, grid);
    scale[group] = f16(static_cast<float>(grid.scale));
    zero[group] = static_cast<u8>(static_cast<float>(grid.zero));
  });
}

}  // namespace signround::SIGNROUND_ISA
