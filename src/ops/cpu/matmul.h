// Matrix products  C[m, n] (=|+=) A[m, k] B[k, n] (+ bias[n])  of row-major or transposed factors, in the manner of BLIS (Van Zee
// and van de Geijn, 2015): both factors are packed into panels, which absorbs transposes, widens 16-bit storage and pads edges;
// then register tiles sweep the panels while they lie in the caches.
//
//   for each block of columns of B and of k:    panels of B, packed by all threads, shared (L3)
//     task: a block of rows                     panels of A, packed by the thread that needs them (L2)
//       for each panel of B, of A               one tile of C                            (L1, registers)
//
// Every sum runs over k in order, in blocks whose bounds depend on k alone: the result depends neither on the number of
// threads nor on where in C the element lies.
#pragma once
#include <type_traits>

#include "base/threads.h"
#include "ops/cpu/microkernel.h"

namespace signround::SIGNROUND_ISA {

// Element (i, j) is data[i * stride + j], or data[j * stride + i] of a transposed matrix.
template <class S>
struct Factor {
  const S* data;
  i64 stride;
  bool flipped = false;
  Factor at(i64 i, i64 j) const { return {flipped ? data + j * stride + i : data + i * stride + j, stride, flipped}; }
};
template <class S>
Factor<S> row_major(const S* data, i64 stride) { return {data, stride}; }
template <class S>
Factor<S> transposed(Factor<S> f) { return {f.data, f.stride, !f.flipped}; }

[[gnu::always_inline]] inline i64 smaller(i64 a, i64 b) { return a < b ? a : b; }
[[gnu::always_inline]] inline i64 larger(i64 a, i64 b) { return a < b ? b : a; }
[[gnu::always_inline]] inline constexpr i64 divide_up(i64 a, i64 b) { return (a + b - 1) / b; }

// A packed factor: panels of `lanes` rows of A (columns of B), `words` apart; one panel if that is 0.
template <class A>
struct Panels {
  typename A::Word* data;
  i64 lanes, words = 0;
  Panels from(i64 lane) const { return {data + lane / lanes * words, lanes, words}; }  // a lane that begins a panel
};

// Packs `count` <= width lanes of f, a lane being a row, from k = 0 to k: out[step][width], zero where there is no lane or k.
template <class A, int width, class S>
void pack_panel(typename A::Word* out, Factor<S> f, i64 count, i64 k) {
  if (!f.flipped) {
    constexpr int chunk = A::lanes * A::depth;
    for (int g = 0; g < width; g += A::lanes)
      for (i64 k0 = 0; k0 < k; k0 += chunk) {
        const int n = static_cast<int>(smaller(chunk, k - k0));
        typename A::Words v[A::lanes];
        for (int i = 0; i < A::lanes; ++i)
          v[i] = g + i < count ? A::load_steps(f.data + (g + i) * f.stride + k0, n) : A::none();
        A::transpose(v);
        const i64 steps = (n + A::depth - 1) / A::depth;
        for (int i = 0; i < A::lanes; ++i)
          if (i < steps) A::store(out + (k0 / A::depth + i) * width + g, v[i]);
      }
  } else {
    for (i64 k0 = 0; k0 < k; k0 += A::depth, out += width)
      for (int g = 0; g < width; g += A::lanes) {
        const S* at = f.data + k0 * f.stride + g;
        const int n = static_cast<int>(smaller(A::lanes, count - g));
        A::store(out + g, n > 0 ? A::load_lanes(at, k0 + 1 < k ? at + f.stride : nullptr, n) : A::none());
      }
  }
}

template <class A>
constexpr i64 panel_words(i64 k, int width) { return divide_up(k, A::depth) * width; }

// The left factor A[m, k], in as few panels as possible, and those alike; and room for it.
template <class A>
i64 left_lanes(i64 m) { return divide_up(m, divide_up(m, A::rows)); }
template <class A>
i64 left_words(i64 m, i64 k) { return divide_up(m, left_lanes<A>(m)) * panel_words<A>(k, A::left); }
template <class A, class S>
Panels<A> pack_left(typename A::Word* out, Factor<S> a, i64 m, i64 k) {
  const Panels<A> p{out, left_lanes<A>(m), panel_words<A>(k, A::left)};
  for (i64 i = 0; i < m; i += p.lanes, out += p.words) pack_panel<A, A::left>(out, a.at(i, 0), smaller(p.lanes, m - i), k);
  return p;
}

// The right factor B[k, n].
template <class A>
i64 right_words(i64 n, i64 k) { return divide_up(n, A::right) * panel_words<A>(k, A::right); }
template <class A, class S>
Panels<A> pack_right(typename A::Word* out, Factor<S> b, i64 n, i64 k) {
  const Panels<A> p{out, A::right, panel_words<A>(k, A::right)};
  for (i64 j = 0; j < n; j += A::right, out += p.words)
    pack_panel<A, A::right>(out, transposed(b.at(0, j)), smaller(A::right, n - j), k);
  return p;
}

// The product of packed factors on this thread: c[i][j] = (prior[i][j] +) ..., i < m, j < n; prior as in multiply_tile.
template <class A, class T>
void multiply_panels(T* c, i64 ldc, Panels<A> left, Panels<A> right, i64 m, i64 n, i64 k,
                     const std::type_identity_t<T>* prior = nullptr, i64 prior_stride = 0) {
  const i64 steps = divide_up(k, A::depth);
  for (i64 j = 0; j < n; j += A::right, right.data += right.words) {
    const typename A::Word* panel = left.data;
    for (i64 i = 0; i < m; i += left.lanes, panel += left.words) {
      const int r = static_cast<int>(smaller(left.lanes, m - i));
      const T* before = prior == nullptr ? nullptr : prior + i * prior_stride + j;
      if (j + A::right <= n) {
        Tiles<A, T>::of_rows(r)(panel, right.data, steps, c + i * ldc + j, ldc, before, prior_stride);
      } else {
        T tile[A::rows * A::right];
        Tiles<A, T>::of_rows(r)(panel, right.data, steps, tile, A::right, nullptr, 0);
        for (int y = 0; y < r; ++y)
          for (int x = 0; x < n - j; ++x) {
            const T sum = tile[y * A::right + x];
            c[(i + y) * ldc + j + x] = before == nullptr ? sum : before[y * prior_stride + x] + sum;
          }
      }
    }
  }
}

// C[m, n] = (prior[m, n] +) A B by all threads; prior, if not null, is C itself, or a row that is added to each (stride 0).
template <Precision P, class T, class L, class R>
void matmul_onto(T* c, i64 ldc, Factor<L> a, Factor<R> b, i64 m, i64 n, i64 k, const T* prior, i64 prior_stride) {
  using A = Arithmetic<T, P>;
  using Word = typename A::Word;
  constexpr i64 kDepth = 384 * A::depth, kRows = 8 * A::rows, kCols = 96 * 32;  // the largest blocks
  if (m <= 0 || n <= 0) return;

  constexpr i64 bytes = sizeof(Word);
  const i64 depth = larger(divide_up(divide_up(k, divide_up(larger(k, 1), kDepth)), 8) * 8, 8);
  const i64 cols = smaller(divide_up(n, A::right) * A::right, kCols), threads = thread_count();
  Word* shared = static_cast<Word*>(scratch(Scratch::shared_panels, right_words<A>(cols, depth) * bytes));

  for (i64 j0 = 0; j0 < n; j0 += cols) {
    // Blocks of rows; columns are divided too where there are few rows, so that every thread has several tasks.
    const i64 nj = smaller(cols, n - j0), panels = divide_up(nj, A::right), row_blocks = divide_up(m, kRows);
    const i64 block_rows = divide_up(divide_up(m, row_blocks), A::rows) * A::rows;
    const i64 parts = larger(1, smaller(divide_up(4 * threads, row_blocks), panels / 4));
    const i64 part_panels = divide_up(panels, parts);

    for (i64 k0 = 0; k0 == 0 || k0 < k; k0 += depth) {
      const i64 kk = smaller(depth, k - k0);
      const Panels<A> right{shared, A::right, panel_words<A>(kk, A::right)};
      parallel_ranges(panels, divide_up(panels, 4 * threads), [&](i64 first, i64 last) {
        const i64 j = first * A::right;
        pack_right<A>(right.data + first * right.words, b.at(k0, j0 + j), smaller(last * A::right, nj) - j, kk);
      });
      parallel_for(divide_up(m, block_rows) * parts, [&](i64 task) {
        const i64 i = task / parts * block_rows, mi = smaller(block_rows, m - i);
        const i64 p = task % parts * part_panels, j = j0 + p * A::right, n_part = smaller(part_panels * A::right, j0 + nj - j);
        if (n_part <= 0) return;
        Word* own = static_cast<Word*>(scratch(Scratch::own_panels, left_words<A>(mi, kk) * bytes));
        const Panels<A> left = pack_left<A>(own, a.at(i, k0), mi, kk);
        T* tile = c + i * ldc + j;
        const T* before = k0 > 0 ? tile : prior == nullptr ? nullptr : prior + i * prior_stride + j;
        multiply_panels<A>(tile, ldc, left, right.from(p * A::right), mi, n_part, kk, before,
                           k0 > 0 ? ldc : prior_stride);
      });
    }
  }
}
// C[m, n] (=|+=) A B.
template <Precision P = Precision::f32, class T, class L, class R>
void matmul(T* c, i64 ldc, Factor<L> a, Factor<R> b, i64 m, i64 n, i64 k, Acc acc) {
  matmul_onto<P>(c, ldc, a, b, m, n, k, acc == Acc::add ? c : nullptr, ldc);
}

// C[m, n] = A B + bias[n]; null for none.
template <Precision P = Precision::f32, class T, class L, class R>
void matmul(T* c, i64 ldc, Factor<L> a, Factor<R> b, i64 m, i64 n, i64 k, const T* bias) {
  matmul_onto<P>(c, ldc, a, b, m, n, k, bias, 0);
}

}  // namespace signround::SIGNROUND_ISA
