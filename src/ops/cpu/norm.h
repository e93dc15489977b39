// Norms, a row at a time.
// RMSNorm:   y = x o (w+p) * r,   r = 1/sqrt(mean(x^2) + eps)
// LayerNorm:   y = (x - m) * r o w + b,   m = mean(x),   r = 1/sqrt(mean((x-m)^2) + eps)
#pragma once
#include <cmath>

#include "base/threads.h"
#include "ops/cpu/lanes.h"
#include "ops/types.h"

namespace signround::SIGNROUND_ISA {

inline constexpr i64 kTaskElements = 1 << 14;  // a task of an elementwise op: some ten microseconds of work

// f(row) for every row, in tasks of about kTaskElements elements.
template <class F>
inline void for_rows(i64 rows, i64 cols, F f) {
  parallel_ranges(rows, 1 + kTaskElements / (cols + 1), [&](i64 first, i64 last) {
    for (i64 row = first; row < last; ++row) f(row);
  });
}

template <class T, class W>
void rms(T* y, T* r, const T* x, const W* w, i64 rows, i64 cols, T eps, T p) {
  using std::sqrt;
  for_rows(rows, cols, [&](i64 row) {
    T* yr = y + row * cols;
    const T* xr = x + row * cols;
    const T scale = T(1) / sqrt(lane_sum<T>(cols, [&](i64 i) { return xr[i] * xr[i]; }) / cast<T>(cols) + eps);
    for (i64 i = 0; i < cols; ++i) yr[i] = xr[i] * (cast<T>(w[i]) + p) * scale;
    r[row] = scale;
  });
}

// dx = r * (dy o (w+p))  -  x * r^3 * mean(dy o (w+p) o x).   From r = m^(-1/2), m = mean(x^2) + eps: dr/dx_i = -r^3 x_i / cols.
template <class T, class W>
void rms_bwd(T* dx, Acc acc, const T* dy, const T* x, const W* w, const T* r, i64 rows, i64 cols, T p) {
  for_rows(rows, cols, [&](i64 row) {
    T* dxr = dx + row * cols;
    const T *dyr = dy + row * cols, *xr = x + row * cols;
    const T scale = r[row];
    const T along = lane_sum<T>(cols, [&](i64 i) { return dyr[i] * (cast<T>(w[i]) + p) * xr[i]; }) / cast<T>(cols);
    const T back = scale * scale * scale * along;
    if (acc == Acc::set)
      for (i64 i = 0; i < cols; ++i) dxr[i] = scale * (dyr[i] * (cast<T>(w[i]) + p)) - xr[i] * back;
    else
      for (i64 i = 0; i < cols; ++i) dxr[i] += scale * (dyr[i] * (cast<T>(w[i]) + p)) - xr[i] * back;
  });
}

// stat [rows, 2]: m and r. b may be null.
template <class T, class W, class B>
void layer_norm(T* y, T* stat, const T* x, const W* w, const B* b, i64 rows, i64 cols, T eps) {
  using std::sqrt;
  for_rows(rows, cols, [&](i64 row) {
    T* yr = y + row * cols;
    const T* xr = x + row * cols;
    const T m = lane_sum<T>(cols, [&](i64 i) { return xr[i]; }) / cast<T>(cols);
    const T variance = lane_sum<T>(cols, [&](i64 i) { return (xr[i] - m) * (xr[i] - m); }) / cast<T>(cols);
    const T r = T(1) / sqrt(variance + eps);
    for (i64 i = 0; i < cols; ++i) yr[i] = (xr[i] - m) * r * cast<T>(w[i]) + (b != nullptr ? cast<T>(b[i]) : T(0));
    stat[2 * row] = m;
    stat[2 * row + 1] = r;
  });
}

// dx = r * (a - mean(a) - h * mean(a o h)),   h = (x - m) * r,   a = dy o w
template <class T, class W>
void layer_norm_bwd(T* dx, Acc acc, const T* dy, const T* x, const W* w, const T* stat, i64 rows, i64 cols) {
  for_rows(rows, cols, [&](i64 row) {
    T* dxr = dx + row * cols;
    const T *dyr = dy + row * cols, *xr = x + row * cols;
    const T m = stat[2 * row], r = stat[2 * row + 1];
    const T mean = lane_sum<T>(cols, [&](i64 i) { return dyr[i] * cast<T>(w[i]); }) / cast<T>(cols);
    const T along = lane_sum<T>(cols, [&](i64 i) { return dyr[i] * cast<T>(w[i]) * (xr[i] - m); }) * r / cast<T>(cols);
    const auto term = [&](i64 i) { return r * (dyr[i] * cast<T>(w[i]) - mean - (xr[i] - m) * r * along); };
    if (acc == Acc::set)
      for (i64 i = 0; i < cols; ++i) dxr[i] = term(i);
    else
      for (i64 i = 0; i < cols; ++i) dxr[i] += term(i);
  });
}

}  // namespace signround::SIGNROUND_ISA
