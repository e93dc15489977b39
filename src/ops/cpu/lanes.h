// Two small things that every kernel needs: conversions between scalars, and sums in a fixed order that compilers vectorise.
#pragma once
#include <type_traits>

#include "ops/cpu/microkernel.h"

namespace signround::SIGNROUND_ISA {

// Between any two of float, double, bf16, f16 and the tests' Dual; through float unless the types are the same.
template <class To, class From>
inline To cast(From x) {
  if constexpr (std::is_same_v<To, From>) return x;
  else return static_cast<To>(static_cast<float>(x));
}

// to[i] = from[i], i = 0..n-1. Loops over bf16 become vector code by themselves; f16 takes the processor's own conversions, which
// round alike (only the payload of a NaN may differ).
template <class To, class From>
inline void cast_all(To* to, const From* from, i64 n) {
  for (i64 i = 0; i < n; ++i) to[i] = cast<To>(from[i]);
}
#if defined(__F16C__)
inline void cast_all(float* to, const f16* from, i64 n) {
  i64 i = 0;
  for (; i + 8 <= n; i += 8)
    _mm256_storeu_ps(to + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i))));
  for (; i < n; ++i) to[i] = cast<float>(from[i]);
}
inline void cast_all(f16* to, const float* from, i64 n) {
  i64 i = 0;
  for (; i + 8 <= n; i += 8)
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i), _mm256_cvtps_ph(_mm256_loadu_ps(from + i), _MM_FROUND_TO_NEAREST_INT));
  for (; i < n; ++i) to[i] = cast<f16>(from[i]);
}
#endif

// from as T: itself if it is, else converted into `buffer`.
template <class T, class From>
inline const T* as(T* buffer, const From* from, i64 n) {
  if constexpr (std::is_same_v<T, From>) return from;
  else {
    cast_all(buffer, from, n);
    return buffer;
  }
}

// Sums in sixteen lanes, i mod 16, added up as a tree: an order that is the same on every processor, wide enough for any of them.
inline constexpr int kLanes = 16;

template <int lanes, int width = lanes / 2, class T>
inline T lanes_total(T (&lane)[lanes]) {
  for (int l = 0; l < width; ++l) lane[l] += lane[l + width];
  if constexpr (width > 1) return lanes_total<lanes, width / 2>(lane);
  return lane[0];
}

// Sum of term(i), i = 0..n-1.
template <class T, class F>
inline T lane_sum(i64 n, F term) {
  T lane[kLanes] = {};
  i64 i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int l = 0; l < kLanes; ++l) lane[l] += term(i + l);
  for (int l = 0; i + l < n; ++l) lane[l] += term(i + l);
  return lanes_total(lane);
}

// The same in thirty-two lanes, for terms that come piece by piece: all pieces but the last are multiples of that long. Up to 32
// terms give the bits that sixteen lanes give.
template <class T>
struct RunningSum {
  static constexpr int kWide = 32;
  T lane[kWide] = {};
  void add(const T* term, i64 n) {
    i64 i = 0;
    for (; i + kWide <= n; i += kWide)
      for (int l = 0; l < kWide; ++l) lane[l] += term[i + l];
    for (int l = 0; i + l < n; ++l) lane[l] += term[i + l];
  }
  T total() { return lanes_total(lane); }
};

// max(first, term(i)); NaN is passed over.
template <class T, class F>
inline T lane_max(i64 n, T first, F term) {
  T lane[kLanes];
  for (T& x : lane) x = first;
  i64 i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int l = 0; l < kLanes; ++l) {
      const T t = term(i + l);
      lane[l] = t > lane[l] ? t : lane[l];
    }
  for (int l = 0; i + l < n; ++l) {
    const T t = term(i + l);
    lane[l] = t > lane[l] ? t : lane[l];
  }
  for (int l = 1; l < kLanes; ++l) lane[0] = lane[l] > lane[0] ? lane[l] : lane[0];
  return lane[0];
}

}  // namespace signround::SIGNROUND_ISA
