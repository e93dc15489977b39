// Two small things that every kernel needs: conversions between scalars, and sums in a fixed order that compilers vectorise.
#pragma once
#include <type_traits>

#include "base/dtype.h"
#include "ops/cpu/isa.h"

namespace signround::SIGNROUND_ISA {

// Between any two of float, double, bf16, f16 and the tests' Dual; through float unless the types are the same.
template <class To, class From>
inline To cast(From x) {
  if constexpr (std::is_same_v<To, From>) return x;
  else return static_cast<To>(static_cast<float>(x));
}

// Sums in sixteen lanes, i mod 16, added up as a tree: an order that is the same on every processor, and wide enough for any vector
// unit.
inline constexpr int kLanes = 16;

template <class T>
inline T lanes_total(T (&lane)[kLanes]) {
  for (int width = kLanes / 2; width > 0; width /= 2)
    for (int l = 0; l < width; ++l) lane[l] += lane[l + width];
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

// The same for terms that come piece by piece: all pieces but the last are multiples of kLanes long.
template <class T>
struct RunningSum {
  T lane[kLanes] = {};
  void add(const T* term, i64 n) {
    i64 i = 0;
    for (; i + kLanes <= n; i += kLanes)
      for (int l = 0; l < kLanes; ++l) lane[l] += term[i + l];
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
