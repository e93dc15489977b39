// The inner loop of every matrix product; beside it only the f16 conversions of lanes.h know instruction sets.
//
// A panel is a strip of a factor, rearranged so that the inner loop reads it in order: panel[step][lane]. A lane is a row of
// the left factor or a column of the right one; a step is `depth` consecutive k. A left panel is `left` lanes wide, of which up
// to `rows` are used; a right panel is `right` lanes wide. Its words are floats, pairs of bf16, or any other scalar.
//
//   c[i][j] = (prior[i][j] +) sum_k left[k][i] * right[k][j]      rows x right sums, held in registers
//
// Arithmetic<T, Precision> has the types and the handful of instructions. bf16 factors are multiplied in pairs where the
// processor can (AVX-512 BF16: sums are float32, denormals count as zero); elsewhere bf16 precision means the more exact
// float32 kernel.
#pragma once
#include <bit>
#include <cstring>
#include <utility>
#if defined(__AVX2__)
#if defined(__GNUC__) && !defined(__clang__)  // g++ 12 warns of its own _mm512_undefined
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
#else
#include <immintrin.h>
#endif
#endif

#include "base/dtype.h"
#include "ops/cpu/isa.h"
#include "ops/types.h"

namespace signround::SIGNROUND_ISA {

// a * b + c, fused where the instruction set has it.
[[gnu::always_inline]] inline float mul_add(float a, float b, float c) {
#if defined(__FMA__)
  return __builtin_fmaf(a, b, c);
#else
  return a * b + c;
#endif
}

template <class T>
[[gnu::always_inline]] inline T widen(T x) { return x; }
[[gnu::always_inline]] inline float widen(bf16 x) { return std::bit_cast<float>(static_cast<u32>(x.bits) << 16); }
[[gnu::always_inline]] inline float widen(f16 x) { return static_cast<float>(x); }

// Any scalar, one at a time: double, and the dual numbers of the tests.
template <class T, Precision>
struct Arithmetic {
  using Word = T;    // one element of a panel
  using Words = T;   // a register of them
  using Sums = T;    // a register of sums
  static constexpr int lanes = 1, rows = 4, left = 4, right = 4, depth = 1;

  static Sums zero() { return T(0); }
  static Sums read(const T* p) { return *p; }
  static void write(T* p, Sums v) { *p = v; }
  static Sums add(Sums a, Sums b) { return a + b; }
  static Words load(const Word* p) { return *p; }
  static void store(Word* p, Words v) { *p = v; }
  static Words broadcast(const Word* p) { return *p; }
  static Sums multiply_add(Words a, Words b, Sums c) { return a * b + c; }

  // A register of words: of n <= lanes * depth consecutive k of one lane, or of n <= lanes lanes of one step, which begins at
  // k0 and whose second k, if depth is 2, is at k1 (null past the end). What is missing is zero.
  template <class S>
  static Words load_steps(const S* p, int) { return T(widen(*p)); }
  template <class S>
  static Words load_lanes(const S* k0, const S*, int) { return T(widen(*k0)); }
  static Words none() { return T(0); }
  static void transpose(Words (&)[1]) {}
};

#if defined(__AVX512F__)

[[gnu::always_inline]] inline __mmask16 low16(int n) {
  return static_cast<__mmask16>(n >= 16 ? 0xFFFFu : n <= 0 ? 0u : (1u << n) - 1u);
}
[[gnu::always_inline]] inline __m512 load_floats(const float* p, int n) { return _mm512_maskz_loadu_ps(low16(n), p); }
[[gnu::always_inline]] inline __m512i load_halves(const void* p, int n) {
  return _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(low16(n), p));
}
[[gnu::always_inline]] inline __m512 load_floats(const bf16* p, int n) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(load_halves(p, n), 16));
}
[[gnu::always_inline]] inline __m512 load_floats(const f16* p, int n) {
  return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(low16(n), p));
}

// v[i][j] <-> v[j][i], as blocks of 1, 2, 4 and 8.
[[gnu::always_inline]] inline void transpose16(__m512i (&v)[16]) {
  __m512i t[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(v[i], v[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(v[i], v[i + 1]);
  }
  for (int i = 0; i < 16; i += 4)
    for (int j = 0; j < 2; ++j) {
      v[i + 2 * j] = _mm512_unpacklo_epi64(t[i + j], t[i + 2 + j]);
      v[i + 2 * j + 1] = _mm512_unpackhi_epi64(t[i + j], t[i + 2 + j]);
    }
  for (int i = 0; i < 16; i += 8)
    for (int j = 0; j < 4; ++j) {
      t[i + j] = _mm512_shuffle_i32x4(v[i + j], v[i + 4 + j], 0x88);
      t[i + 4 + j] = _mm512_shuffle_i32x4(v[i + j], v[i + 4 + j], 0xDD);
    }
  for (int j = 0; j < 8; ++j) {
    v[j] = _mm512_shuffle_i32x4(t[j], t[8 + j], 0x88);
    v[8 + j] = _mm512_shuffle_i32x4(t[j], t[8 + j], 0xDD);
  }
}

template <Precision P>
struct Arithmetic<float, P> {
  using Word = float;
  using Words = __m512;
  using Sums = __m512;
  static constexpr int lanes = 16, rows = 14, left = 16, right = 32, depth = 1;

  static Sums zero() { return _mm512_setzero_ps(); }
  static Sums read(const float* p) { return _mm512_loadu_ps(p); }
  static void write(float* p, Sums v) { _mm512_storeu_ps(p, v); }
  static Sums add(Sums a, Sums b) { return _mm512_add_ps(a, b); }
  static Words load(const Word* p) { return _mm512_load_ps(p); }
  static void store(Word* p, Words v) { _mm512_store_ps(p, v); }
  static Words broadcast(const Word* p) { return _mm512_set1_ps(*p); }
  static Sums multiply_add(Words a, Words b, Sums c) { return _mm512_fmadd_ps(a, b, c); }

  template <class S>
  static Words load_steps(const S* p, int n) { return load_floats(p, n); }
  template <class S>
  static Words load_lanes(const S* k0, const S*, int n) { return load_floats(k0, n); }
  static Words none() { return _mm512_setzero_ps(); }
  static void transpose(Words (&v)[16]) {
    __m512i w[16];
    for (int i = 0; i < 16; ++i) w[i] = _mm512_castps_si512(v[i]);
    transpose16(w);
    for (int i = 0; i < 16; ++i) v[i] = _mm512_castsi512_ps(w[i]);
  }
};

#elif defined(__AVX2__)

[[gnu::always_inline]] inline __m256 load_floats(const float* p, int n) {
  if (n >= 8) return _mm256_loadu_ps(p);
  const __m256i index = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_maskload_ps(p, _mm256_cmpgt_epi32(_mm256_set1_epi32(n), index));
}
[[gnu::always_inline]] inline __m128i load_halves(const void* p, int n) {
  if (n >= 8) return _mm_loadu_si128(static_cast<const __m128i*>(p));
  u16 some[8] = {};
  std::memcpy(some, p, n > 0 ? static_cast<std::size_t>(n) * 2 : 0);
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(some));
}
[[gnu::always_inline]] inline __m256 load_floats(const bf16* p, int n) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(load_halves(p, n)), 16));
}
[[gnu::always_inline]] inline __m256 load_floats(const f16* p, int n) { return _mm256_cvtph_ps(load_halves(p, n)); }

template <Precision P>
struct Arithmetic<float, P> {
  using Word = float;
  using Words = __m256;
  using Sums = __m256;
  static constexpr int lanes = 8, rows = 6, left = 8, right = 16, depth = 1;

  static Sums zero() { return _mm256_setzero_ps(); }
  static Sums read(const float* p) { return _mm256_loadu_ps(p); }
  static void write(float* p, Sums v) { _mm256_storeu_ps(p, v); }
  static Sums add(Sums a, Sums b) { return _mm256_add_ps(a, b); }
  static Words load(const Word* p) { return _mm256_load_ps(p); }
  static void store(Word* p, Words v) { _mm256_store_ps(p, v); }
  static Words broadcast(const Word* p) { return _mm256_broadcast_ss(p); }
  static Sums multiply_add(Words a, Words b, Sums c) { return _mm256_fmadd_ps(a, b, c); }

  template <class S>
  static Words load_steps(const S* p, int n) { return load_floats(p, n); }
  template <class S>
  static Words load_lanes(const S* k0, const S*, int n) { return load_floats(k0, n); }
  static Words none() { return _mm256_setzero_ps(); }
  static void transpose(Words (&v)[8]) {
    Words t[8];
    for (int i = 0; i < 8; i += 2) {
      t[i] = _mm256_unpacklo_ps(v[i], v[i + 1]);
      t[i + 1] = _mm256_unpackhi_ps(v[i], v[i + 1]);
    }
    for (int i = 0; i < 8; i += 4)
      for (int j = 0; j < 2; ++j) {
        v[i + 2 * j] = _mm256_shuffle_ps(t[i + j], t[i + 2 + j], 0x44);
        v[i + 2 * j + 1] = _mm256_shuffle_ps(t[i + j], t[i + 2 + j], 0xEE);
      }
    for (int j = 0; j < 4; ++j) {
      t[j] = _mm256_permute2f128_ps(v[j], v[4 + j], 0x20);
      t[4 + j] = _mm256_permute2f128_ps(v[j], v[4 + j], 0x31);
    }
    for (int j = 0; j < 8; ++j) v[j] = t[j];
  }
};

#else

// Four floats in the compiler's own vector type: whatever the processor has.
template <Precision P>
struct Arithmetic<float, P> {
  typedef float Sums __attribute__((vector_size(16)));
  using Word = float;
  using Words = Sums;
  static constexpr int lanes = 4, rows = 6, left = 8, right = 8, depth = 1;

  static Sums zero() { return Sums{}; }
  static Sums read(const float* p) {
    Sums v;
    std::memcpy(&v, p, sizeof v);
    return v;
  }
  static void write(float* p, Sums v) { std::memcpy(p, &v, sizeof v); }
  static Sums add(Sums a, Sums b) { return a + b; }
  static Words load(const Word* p) { return read(p); }
  static void store(Word* p, Words v) { write(p, v); }
  static Words broadcast(const Word* p) { return Words{*p, *p, *p, *p}; }
  static Sums multiply_add(Words a, Words b, Sums c) { return a * b + c; }

  template <class S>
  static Words load_steps(const S* p, int n) {
    Words v{};
    for (int i = 0; i < 4; ++i)
      if (i < n) v[i] = widen(p[i]);
    return v;
  }
  template <class S>
  static Words load_lanes(const S* k0, const S*, int n) { return load_steps(k0, n); }
  static Words none() { return Words{}; }
  static void transpose(Words (&v)[4]) {
    for (int i = 0; i < 4; ++i)
      for (int j = i + 1; j < 4; ++j) {
        const float t = v[i][j];
        v[i][j] = v[j][i];
        v[j][i] = t;
      }
  }
};

#endif

#if defined(__AVX512BF16__)

template <>
struct Arithmetic<float, Precision::bf16> : Arithmetic<float, Precision::f32> {
  using Word = u32;  // bf16 of k in the low half, of k + 1 in the high half
  using Words = __m512i;
  static constexpr int depth = 2;

  static Words load(const Word* p) { return _mm512_load_si512(p); }
  static void store(Word* p, Words v) { _mm512_store_si512(p, v); }
  static Words broadcast(const Word* p) { return _mm512_set1_epi32(static_cast<int>(*p)); }
  static Sums multiply_add(Words a, Words b, Sums c) { return _mm512_dpbf16_ps(c, as_bf16(a), as_bf16(b)); }

  template <class S>
  static Words load_steps(const S* p, int n) { return narrow(load_floats(p, n), load_floats(p + 16, n - 16)); }
  static Words load_steps(const bf16* p, int n) {
    return _mm512_maskz_loadu_epi16(n >= 32 ? ~__mmask32{0} : (__mmask32{1} << n) - 1, p);
  }
  template <class S>
  static Words load_lanes(const S* k0, const S* k1, int n) {
    const __m512i order = _mm512_or_si512(_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
                                          _mm512_slli_epi32(_mm512_setr_epi32(16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28,
                                                                              29, 30, 31), 16));
    return _mm512_permutexvar_epi16(order, narrow(load_floats(k0, n), k1 == nullptr ? zero() : load_floats(k1, n)));
  }
  static Words load_lanes(const bf16* k0, const bf16* k1, int n) {
    const __m512i low = load_halves(k0, n);
    return k1 == nullptr ? low : _mm512_or_si512(low, _mm512_slli_epi32(load_halves(k1, n), 16));
  }
  static Words none() { return _mm512_setzero_si512(); }
  static void transpose(Words (&v)[16]) { transpose16(v); }

 private:
  static __m512bh as_bf16(Words v) { return std::bit_cast<__m512bh>(v); }
  static Words narrow(__m512 low, __m512 high) { return std::bit_cast<Words>(_mm512_cvtne2ps_pbh(high, low)); }
};

#endif

// A tile of the product: R rows of `right` columns. prior, if not null, is added: the tile itself, or a row of biases (stride 0).
template <class A, int R, class T>
void multiply_tile(const typename A::Word* left, const typename A::Word* right, i64 steps, T* c, i64 ldc, const T* prior,
                   i64 prior_stride) {
  constexpr int V = A::right / A::lanes;
  typename A::Sums sum[R][V];
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < V; ++j) sum[i][j] = A::zero();
  if (prior != nullptr)
    for (int i = 0; i < R; ++i)
      for (int j = 0; j < V; ++j) __builtin_prefetch(prior + i * prior_stride + j * A::lanes);
  for (; steps > 0; --steps) {
    typename A::Words b[V];
#pragma GCC unroll 4
    for (int j = 0; j < V; ++j) b[j] = A::load(right + j * A::lanes);
#pragma GCC unroll 16
    for (int i = 0; i < R; ++i) {
      const typename A::Words a = A::broadcast(left + i);
#pragma GCC unroll 4
      for (int j = 0; j < V; ++j) sum[i][j] = A::multiply_add(a, b[j], sum[i][j]);
    }
    left += A::left;
    right += A::right;
  }
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < V; ++j) {
      if (prior != nullptr) sum[i][j] = A::add(A::read(prior + i * prior_stride + j * A::lanes), sum[i][j]);
      A::write(c + i * ldc + j * A::lanes, sum[i][j]);
    }
}

// multiply_tile by the number of rows, which is known only at run time.
template <class A, class T>
struct Tiles {
  using Function = void (*)(const typename A::Word*, const typename A::Word*, i64, T*, i64, const T*, i64);
  template <int... R>
  struct List {
    static constexpr Function of_rows[] = {nullptr, multiply_tile<A, R + 1, T>...};
  };
  template <int... R>
  static constexpr Function pick(std::integer_sequence<int, R...>, int rows) { return List<R...>::of_rows[rows]; }
  static Function of_rows(int rows) { return pick(std::make_integer_sequence<int, A::rows>{}, rows); }
};

}  // namespace signround::SIGNROUND_ISA
