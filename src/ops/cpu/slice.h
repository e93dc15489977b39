// Some columns of every row.   y[n, p*width + j] = x[n, p*period + first + j],   j < width
#pragma once
#include "ops/cpu/norm.h"

namespace signround::SIGNROUND_ISA {

// x is seen as [rows, period], y as [rows, width].
template <class T>
void slice(T* y, const T* x, i64 rows, const ColumnSlice& s) {
  for_rows(rows, s.width, [&](i64 row) {
    for (i64 j = 0; j < s.width; ++j) y[row * s.width + j] = x[row * s.period + s.first + j];
  });
}

// dx is dy at those columns, 0 at the others.
template <class T>
void slice_bwd(T* dx, Acc acc, const T* dy, i64 rows, const ColumnSlice& s) {
  for_rows(rows, s.period, [&](i64 row) {
    T* dxr = dx + row * s.period;
    if (acc == Acc::set)
      for (i64 j = 0; j < s.period; ++j) dxr[j] = T(0);
    for (i64 j = 0; j < s.width; ++j) dxr[s.first + j] += dy[row * s.width + j];
  });
}

}  // namespace signround::SIGNROUND_ISA
