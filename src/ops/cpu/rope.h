// Rotary position embedding.   (y_i, y_j) = (x_i cos - x_j sin, x_j cos + x_i sin) for the pairs (i, j) of a head, at position
// row % T. The backward is the rotation back: the same with -sin.
#pragma once
#include "ops/cpu/norm.h"

namespace signround::SIGNROUND_ISA {

// table [T, rotary_dim]: cos of the pairs, then their sin. direction: 1 forward, -1 back. y may be x.
template <class T>
void rotate(T* y, Acc acc, const T* x, const float* table, i64 rows, const RopeShape& shape, float direction) {
  const i64 d = shape.head_dim, pairs = shape.rotary_dim / 2, cols = shape.heads * d;
  const i64 step = shape.interleaved ? 2 : 1, partner = shape.interleaved ? 1 : pairs;
  const bool add = acc == Acc::add;
  for_rows(rows, cols, [&](i64 row) {
    const float *cosine = table + row % shape.tokens * shape.rotary_dim, *sine = cosine + pairs;
    for (i64 head = 0; head < shape.heads; ++head) {
      T* yh = y + row * cols + head * d;
      const T* xh = x + row * cols + head * d;
      for (i64 k = 0; k < pairs; ++k) {
        const i64 i = k * step, j = i + partner;
        const T c = T(cosine[k]), s = T(direction * sine[k]);
        const T yi = xh[i] * c - xh[j] * s, yj = xh[j] * c + xh[i] * s;
        yh[i] = add ? yh[i] + yi : yi;
        yh[j] = add ? yh[j] + yj : yj;
      }
      for (i64 i = 2 * pairs; i < d; ++i) yh[i] = add ? yh[i] + xh[i] : xh[i];
    }
  });
}

}  // namespace signround::SIGNROUND_ISA
