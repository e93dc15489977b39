// Quantize-dequantize and its backward: what SignRound adds to a linear (arXiv 2309.05516, in the form of auto-round).
//
// The formulas of a weight and of a group: ops/qdq_math.h; here they run over tensors.
// Step:  v -= lr sign(dv),  lo = clamp(lo - minmax_lr sign(dlo), 0, 1), hi likewise;  sign(0) = sign(NaN) = 0.
//
// Everything is computed in f32, in an order that is the same on every processor; so are the results, to the bit.
#pragma once
#include <array>

#include "base/threads.h"
#include "ops/cpu/lanes.h"
#include "ops/ops.h"
#include "ops/qdq_math.h"

namespace signround::SIGNROUND_ISA {

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
      const Terms<T> terms = terms_of(g[first + i], level_of(x[i], v[first + i], grid), grid);
      dv[i] = terms.dv;
      s[i] = terms.s;
      z[i] = terms.z;
    }
    sum_s.add(s, count);
    sum_z.add(z, count);
    use(first, count, dv);
  });
  return range_bwd(range, grid, sum_s.total(), sum_z.total(), spec);
}

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
