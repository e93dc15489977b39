// Rows of a table.   y[n] = scale * table[ids[n]]
#pragma once
#include "base/error.h"
#include "ops/cpu/norm.h"

namespace signround::SIGNROUND_ISA {

// y[n] = n % T + offset
inline void positions(i32* y, i64 rows, i64 tokens, i64 offset) {
  for (i64 n = 0; n < rows; ++n) y[n] = static_cast<i32>(n % tokens + offset);
}

inline void check_ids(const i32* ids, i64 rows, i64 vocabulary) {
  for (i64 n = 0; n < rows; ++n)
    check(ids[n] >= 0 && ids[n] < vocabulary, ErrorKind::bad_input, "token id ", ids[n], " at position ", n,
          " is outside the embedding table of ", vocabulary, " rows");
}

template <class T, class W>
void embed(T* y, const i32* ids, const W* table, i64 rows, i64 cols, i64 vocabulary, T scale) {
  check_ids(ids, rows, vocabulary);
  for_rows(rows, cols, [&](i64 n) {
    const W* from = table + ids[n] * cols;
    for (i64 i = 0; i < cols; ++i) y[n * cols + i] = scale * cast<T>(from[i]);
  });
}

// dtable[ids[n]] += scale * dy[n], in the order of n: a task has columns of its own.
template <class T>
void embed_bwd(T* dtable, const T* dy, const i32* ids, i64 rows, i64 cols, i64 vocabulary, T scale) {
  check_ids(ids, rows, vocabulary);
  parallel_ranges(cols, 64, [&](i64 first, i64 last) {
    for (i64 n = 0; n < rows; ++n) {
      T* to = dtable + ids[n] * cols;
      for (i64 i = first; i < last; ++i) to[i] += scale * dy[n * cols + i];
    }
  });
}

}  // namespace signround::SIGNROUND_ISA
