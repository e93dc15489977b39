// Quantize-dequantize and its backward: what SignRound adds to a linear (arXiv 2309.05516, in the form of auto-round).
//
// The formulas of a weight and of a group: ops/qdq_math.h; of scales of two levels: ops/qdq_super.h; here they run over tensors.
// Step:  v -= lr sign(dv),  lo = clamp(lo - minmax_lr sign(dlo), 0, most), hi likewise;  sign(0) = sign(NaN) = 0.
//
// Everything is computed in f32, in an order that is the same on every processor; so are the results, to the bit.
#pragma once
#include <array>

#include "base/threads.h"
#include "ops/cpu/lanes.h"
#include "ops/ops.h"
#include "ops/qdq_super.h"

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
    for (i64 i = 0; i < count; ++i) out[i] = value_of(level_of(x[i], v[first + i], grid), grid);
    cast_all(wq + first, out, count);
  });
}

template <class T>
inline int whole(T x) { return static_cast<int>(static_cast<float>(x)); }

template <class T, class W>
inline void group_codes(u8* codes, const W* w, const T* v, i64 n, const Grid<T>& grid) {
  for (i64 i = 0; i < n; ++i)
    codes[i] = static_cast<u8>(whole(level_of(cast<T>(w[i]), v[i], grid).q + grid.zero));
}

// The sums {S, Z} of one group are returned; dv goes to use(i, n, dv), piece by piece: dv[0..n) belongs to v[i..i+n).
template <class T, class W, class Use>
inline std::array<T, 2> group_bwd(const T* g, const W* w, const T* v, i64 n, const Grid<T>& grid, Use use) {
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
  return {sum_s.total(), sum_z.total()};
}

// The error of one group rounded to nearest, each weight's times its h.
template <class T, class W>
inline T group_error(const W* w, const T* h, i64 n, const Grid<T>& grid) {
  RunningSum<T> sum;
  for_pieces(n, [&](i64 first, i64 count) {
    T wide[kPiece], term[kPiece];
    const T* x = as(wide, w + first, count);
    for (i64 i = 0; i < count; ++i) term[i] = error_of(x[i], h[first + i], grid);
    sum.add(term, count);
  });
  return sum.total();
}

// The groups that share an f16 scale: one, or those of a super-block.
template <class T>
struct SharedGrids {
  Range<T> range[kMostGroups];
  Grid<T> grid[kMostGroups];
  Step<T> d, e;                                  // two levels alone, as c and n; e and n if asymmetric
  Level<T> c[kMostGroups], n[kMostGroups];
};

template <class T, class F>
inline Step<T> shared_step(int groups, const QuantSpec& spec, F value) {
  Pivot<T> pivot{value(0), 0};
  for (int k = 1; k < groups; ++k) pivot = farther(pivot, Pivot<T>{value(k), k}, spec.symmetric);
  return step_of(pivot, spec);
}

// The grids from the ranges.
template <class T>
inline void choose_grids(SharedGrids<T>& s, int groups, const QuantSpec& spec) {
  if (!spec.two_levels()) {
    s.grid[0] = grid_of(s.range[0], spec);
    return;
  }
  s.d = shared_step<T>(groups, spec, [&](int k) { return scale_of(s.range[k], spec); });
  if (!spec.symmetric) s.e = shared_step<T>(groups, spec, [&](int k) { return -s.range[k].mn(); });
  for (int k = 0; k < groups; ++k) {
    s.c[k] = scale_level(scale_of(s.range[k], spec), s.d, spec);
    if (!spec.symmetric) s.n[k] = offset_level(-s.range[k].mn(), s.e);
    s.grid[k] = grid_of(s.c[k], s.d, spec.symmetric ? T(0) : s.e.value * s.n[k].q, spec);
  }
}

// {dlo, dhi} of each group from the sums {S, Z} of each.
template <class T>
inline void grids_bwd(std::array<T, 2>* d, const std::array<T, 2>* sums, const SharedGrids<T>& s, int groups,
                      const QuantSpec& spec) {
  if (!spec.two_levels()) {
    d[0] = range_bwd(s.range[0], s.grid[0], sums[0][0], sums[0][1], spec);
    return;
  }
  const T sum_d = lane_sum<T>(groups, [&](i64 k) { return step_terms(sums[k][0], s.c[k]).step; });
  const T sum_e = spec.symmetric ? T(0) : lane_sum<T>(groups, [&](i64 k) { return step_terms(-sums[k][1], s.n[k]).step; });
  for (int k = 0; k < groups; ++k) {
    const T ds = with_pivot(step_terms(sums[k][0], s.c[k]).own, sum_d, s.d, k);
    const T offset = spec.symmetric ? T(0) : with_pivot(step_terms(-sums[k][1], s.n[k]).own, sum_e, s.e, k);
    d[k] = ends_bwd(s.range[k], ds, -offset, spec);
  }
}

// ---- Whole tensors: [rows, cols] weights in groups of `spec.group` columns, the last of a row perhaps shorter. A task is some
// rows; f(place) is called for all groups of theirs that share a scale.
struct Place {
  i64 scale, group, at, n;  // index of the scale, of the first group, of its first weight; weights of a group
  int groups;

  template <class F>
  void each(F f) const {  // f(k, index of the group, index of its first weight)
    for (int k = 0; k < groups; ++k) f(k, group + k, at + k * n);
  }
};
template <class F>
inline void for_places(i64 rows, i64 cols, const QuantSpec& spec, F f) {
  const i64 group = spec.group_of(cols), shared = spec.shared(), scales = spec.scales(cols);
  parallel_ranges(rows, 1 + (1 << 15) / (cols + 1), [&](i64 first, i64 last) {
    for (i64 row = first; row < last; ++row)
      for (i64 k = 0; k < scales; ++k) {
        const i64 at = k * shared * group;
        f(Place{row * scales + k, (row * scales + k) * shared, row * cols + at, cols - at < group ? cols - at : group,
                static_cast<int>(shared)});
      }
  });
}

template <class T, class W>
void group_range(T* wmin, T* wmax, const W* w, i64 rows, i64 cols, const QuantSpec& spec) {
  for_places(rows, cols, spec, [&](const Place& place) {
    place.each([&](int, i64 group, i64 at) {
      wmin[group] = -lane_max(place.n, T(0), [&](i64 i) { return -cast<T>(w[at + i]); });
      wmax[group] = lane_max(place.n, T(0), [&](i64 i) { return cast<T>(w[at + i]); });
    });
  });
}

// The learned tensors of one linear, typed.
template <class T, class W>
struct Learned {
  const W* w;
  const T *wmin, *wmax;
  T *v, *lo, *hi;

  void choose(SharedGrids<T>& s, const Place& place, const QuantSpec& spec) const {
    place.each([&](int k, i64 group, i64) { s.range[k] = {wmin[group], wmax[group], lo[group], hi[group]}; });
    choose_grids(s, place.groups, spec);
  }
};

template <class T, class W>
void qdq(W* wq, const Learned<T, W>& p, i64 rows, i64 cols, const QuantSpec& spec) {
  for_places(rows, cols, spec, [&](const Place& place) {
    SharedGrids<T> s;
    p.choose(s, place, spec);
    place.each([&](int k, i64, i64 at) { group_qdq(wq + at, p.w + at, p.v + at, place.n, s.grid[k]); });
  });
}

template <class T, class W>
void qdq_step(W* wq, const Learned<T, W>& p, const T* dwq, i64 rows, i64 cols, const QuantSpec& spec, T lr, T minmax_lr,
              T most) {
  for_places(rows, cols, spec, [&](const Place& place) {
    SharedGrids<T> s;
    std::array<T, 2> sums[kMostGroups] = {}, d[kMostGroups];
    p.choose(s, place, spec);
    place.each([&](int k, i64, i64 at) {
      sums[k] = group_bwd(dwq + at, p.w + at, p.v + at, place.n, s.grid[k], [&](i64 first, i64 count, const T* dv) {
        for (i64 i = 0; i < count; ++i) p.v[at + first + i] -= lr * sign(dv[i]);
      });
    });
    grids_bwd(d, sums, s, place.groups, spec);
    place.each([&](int k, i64 group, i64) {
      p.lo[group] = held(s.range[k].lo - minmax_lr * sign(d[k][0]), T(0), most);
      p.hi[group] = held(s.range[k].hi - minmax_lr * sign(d[k][1]), T(0), most);
    });
    p.choose(s, place, spec);
    place.each([&](int k, i64, i64 at) { group_qdq(wq + at, p.w + at, p.v + at, place.n, s.grid[k]); });
  });
}

template <class T, class W>
void search_factors(const Learned<T, W>& p, const T* h, i64 rows, i64 cols, const QuantSpec& spec) {
  for_places(rows, cols, spec, [&](const Place& place) {
    place.each([&](int, i64 group, i64 at) {
      const auto trial = [&](T factor) {
        const Range<T> range{p.wmin[group], p.wmax[group], factor, factor};
        return Trial<T>{factor, group_error(p.w + at, h + at % cols, place.n, grid_of(range, spec))};
      };
      Trial<T> best = trial(T(1));
      for (int k = kFirstTrial; k <= kLastTrial; ++k) best = better(best, trial(trial_factor<T>(k)));
      p.lo[group] = p.hi[group] = best.factor;
    });
  });
}

template <class T>
void column_squares(T* h, const T* x, i64 rows, i64 cols) {
  constexpr i64 kColumns = 64;  // of a task
  parallel_ranges(cols, kColumns, [&](i64 first, i64 last) {
    T sum[kColumns] = {};
    for (i64 row = 0; row < rows; ++row)
      for (i64 c = first; c < last; ++c) sum[c - first] += x[row * cols + c] * x[row * cols + c];
    for (i64 c = first; c < last; ++c) h[c] += sum[c - first];
  });
}

// Where the integers and scales go: GridTensors of ops/ops.h, typed.
struct GridPointers {
  u8* codes;
  f16* scale;
  u8* zero;
  i8* factor;
  f16* offset;
};

template <class T, class W>
void qdq_codes(const GridPointers& out, const Learned<T, W>& p, i64 rows, i64 cols, const QuantSpec& spec) {
  for_places(rows, cols, spec, [&](const Place& place) {
    SharedGrids<T> s;
    p.choose(s, place, spec);
    out.scale[place.scale] = f16(static_cast<float>(spec.two_levels() ? s.d.value : s.grid[0].scale));
    if (out.offset) out.offset[place.scale] = f16(static_cast<float>(s.e.value));
    place.each([&](int k, i64 group, i64 at) {
      group_codes(out.codes + at, p.w + at, p.v + at, place.n, s.grid[k]);
      out.zero[group] = static_cast<u8>(whole(out.offset ? s.n[k].q : s.grid[k].zero));
      if (out.factor) out.factor[group] = static_cast<i8>(whole(s.c[k].q));
    });
  });
}

}  // namespace signround::SIGNROUND_ISA
