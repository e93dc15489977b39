// Matrix products  C[m, n] (=|+=) A[m, k] B[k, n] (+ bias[n])  of row-major or transposed factors, in the manner of BLIS (Van Zee and
// van de Geijn, 2015): both factors are packed into panels, which absorbs transposes, widens 16-bit storage and pads the edges; then
// register tiles sweep the panels while they lie in the caches.
//
//   for each block of columns of B and of k:    panels of B, packed by all threads, shared (L3)
//     task: a block of rows                     panels of A, packed by the thread that needs them (L2)
//       for each panel of B, of A               one tile of C                            (L1, registers)
//
// Every sum runs over k in order, in blocks whose bounds depend on k alone: the result does not depend on the number of threads, nor
// on where in C the element lies.
#pragma once
#include "base/error.h"
#include "base/threads.h"
#include "ops/cpu/microkernel.h"

namespace signround::SIGNROUND_ISA {

// Element (i, j) is data[i * row_stride + j * col_stride]; one of the strides is 1.
template <class S>
struct Factor {
  const S* data;
  i64 row_stride, col_stride;
  Factor<S> at(i64 row, i64 col) const { return {data + row * row_stride + col * col_stride, row_stride, col_stride}; }
};
template <class S>
Factor<S> row_major(const S* data, i64 cols) { return {data, cols, 1}; }
template <class S>
Factor<S> transposed(Factor<S> f) { return {f.data, f.col_stride, f.row_stride}; }

[[gnu::always_inline]] inline i64 smaller(i64 a, i64 b) { return a < b ? a : b; }
[[gnu::always_inline]] inline i64 larger(i64 a, i64 b) { return a < b ? b : a; }
[[gnu::always_inline]] inline i64 divide_up(i64 a, i64 b) { return (a + b - 1) / b; }

// Packs `count` <= width lanes of f, a lane being a row, from k = 0 to k: out[step][width], zero where there is no lane or k.
template <class A, int width, class S>
void pack_panel(typename A::Word* out, Factor<S> f, i64 count, i64 k) {
  if (f.col_stride == 1) {
    constexpr int chunk = A::lanes * A::depth;
    for (int g = 0; g < width; g += A::lanes)
      for (i64 k0 = 0; k0 < k; k0 += chunk) {
        const int n = static_cast<int>(smaller(chunk, k - k0));
        typename A::Words v[A::lanes];
        for (int i = 0; i < A::lanes; ++i)
          v[i] = g + i < count ? A::load_steps(f.data + (g + i) * f.row_stride + k0, n) : A::none();
        A::transpose(v);
        const i64 steps = (n + A::depth - 1) / A::depth;
        for (int i = 0; i < A::lanes; ++i)
          if (i < steps) A::store(out + (k0 / A::depth + i) * width + g, v[i]);
      }
  } else {
    check(f.row_stride == 1, ErrorKind::bug, "matrix product: a factor has no unit stride");
    for (i64 k0 = 0; k0 < k; k0 += A::depth, out += width)
      for (int g = 0; g < width; g += A::lanes) {
        const S* at = f.data + k0 * f.col_stride + g;
        const int n = static_cast<int>(smaller(A::lanes, count - g));
        A::store(out + g, n > 0 ? A::load_lanes(at, k0 + 1 < k ? at + f.col_stride : nullptr, n) : A::none());
      }
  }
}

// Panels of the left factor, or of the right one given transposed: `lanes` rows, `rows` to a panel, each panel steps * width words.
template <class A, int width, class S>
void pack_panels(typename A::Word* out, Factor<S> f, i64 lanes, i64 rows, i64 k) {
  const i64 words = divide_up(k, A::depth) * width;
  for (i64 i = 0; i < lanes; i += rows, out += words) pack_panel<A, width>(out, f.at(i, 0), smaller(rows, lanes - i), k);
}

// Rows to a left panel: as few panels as possible, and those alike.
template <class A>
i64 panel_rows(i64 m) { return divide_up(m, divide_up(m, A::rows)); }

// The product of packed panels, on this thread: c[i][j] = prior[i][j] + ..., i < m, j < n; prior as in multiply_tile.
template <class A, class T>
void multiply_panels(T* c, i64 ldc, const typename A::Word* left, i64 rows, const typename A::Word* right, i64 m, i64 n, i64 k,
                     const T* prior, i64 prior_stride) {
  const i64 steps = divide_up(k, A::depth);
  for (i64 j = 0; j < n; j += A::right, right += steps * A::right) {
    const typename A::Word* panel = left;
    for (i64 i = 0; i < m; i += rows, panel += steps * A::left) {
      const int r = static_cast<int>(smaller(rows, m - i));
      const T* before = prior == nullptr ? nullptr : prior + i * prior_stride + j;
      if (j + A::right <= n) {
        Tiles<A, T>::of_rows(r)(panel, right, steps, c + i * ldc + j, ldc, before, prior_stride);
      } else {
        T tile[A::rows * A::right];
        Tiles<A, T>::of_rows(r)(panel, right, steps, tile, A::right, nullptr, 0);
        for (int y = 0; y < r; ++y)
          for (int x = 0; x < n - j; ++x) {
            const T sum = tile[y * A::right + x];
            c[(i + y) * ldc + j + x] = before == nullptr ? sum : before[y * prior_stride + x] + sum;
          }
      }
    }
  }
}

// C[m, n], ldc >= n (=|+=) A B (+ bias[n], only with Acc::set; null for none), by all threads.
template <Precision P = Precision::f32, class T, class L, class R>
void matmul(T* c, i64 ldc, Factor<L> a, Factor<R> b, i64 m, i64 n, i64 k, Acc acc, const T* bias = nullptr) {
  using A = Arithmetic<T, P>;
  using Word = typename A::Word;
  constexpr i64 kDepth = 384 * A::depth, kRows = 8 * A::rows, kCols = 96 * 32;  // the largest blocks
  check(bias == nullptr || acc == Acc::set, ErrorKind::bug, "matrix product: a bias is set, not added to");
  if (m <= 0 || n <= 0) return;

  const i64 depth = larger(divide_up(divide_up(k, divide_up(larger(k, 1), kDepth)), 8) * 8, 8);
  const i64 steps = depth / A::depth, bytes = static_cast<i64>(sizeof(Word));
  const i64 cols = smaller(divide_up(n, A::right) * A::right, kCols);
  Word* shared = static_cast<Word*>(scratch(Scratch::shared_panels, steps * cols * bytes));
  const i64 threads = thread_count();

  for (i64 j0 = 0; j0 < n; j0 += cols) {
    const i64 nj = smaller(cols, n - j0), panels = divide_up(nj, A::right);
    // Blocks of rows; columns are divided too where there are few rows, so that every thread has several tasks.
    const i64 row_blocks = divide_up(m, kRows);
    const i64 block_rows = divide_up(divide_up(m, row_blocks), A::rows) * A::rows;
    const i64 parts = larger(1, smaller(divide_up(4 * threads, row_blocks), panels / 4));
    const i64 part_panels = divide_up(panels, parts);

    for (i64 k0 = 0; k0 == 0 || k0 < k; k0 += depth) {
      const i64 kk = smaller(depth, k - k0), panel_words = divide_up(kk, A::depth) * A::right;
      const Factor<R> bt = transposed(b.at(k0, j0));
      parallel_ranges(panels, divide_up(panels, 4 * threads), [&](i64 first, i64 last) {
        for (i64 p = first; p < last; ++p)
          pack_panel<A, A::right>(shared + p * panel_words, bt.at(p * A::right, 0), smaller(A::right, nj - p * A::right), kk);
      });
      const bool add = acc == Acc::add || k0 > 0;
      parallel_for(divide_up(m, block_rows) * parts, [&](i64 task) {
        const i64 i = task / parts * block_rows, mi = smaller(block_rows, m - i), rows = panel_rows<A>(mi);
        const i64 p = task % parts * part_panels, j = j0 + p * A::right, nt = smaller(part_panels * A::right, nj - p * A::right);
        if (nt <= 0) return;
        Word* own = static_cast<Word*>(scratch(Scratch::own_panels, divide_up(mi, rows) * A::left * steps * bytes));
        pack_panels<A, A::left>(own, a.at(i, k0), mi, rows, kk);
        T* tile = c + i * ldc + j;
        const T* prior = add ? tile : bias == nullptr ? nullptr : bias + j;
        multiply_panels<A>(tile, ldc, own, rows, shared + p * panel_words, mi, nt, kk, prior, add ? ldc : 0);
      });
    }
  }
}

}  // namespace signround::SIGNROUND_ISA
