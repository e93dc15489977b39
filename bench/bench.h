// What the benchmarks share: random numbers, a clock, medians, and the sides of a comparison taking turns, so that a busy machine
// slows them alike.
#pragma once
#include <algorithm>
#include <chrono>
#include <functional>
#include <vector>

#include "base/tensor.h"

namespace signround {

// Uniform in [-1, 1).
inline std::vector<float> random_floats(i64 n) {
  std::vector<float> v(n);
  u32 state = 1;
  for (float& x : v) x = static_cast<float>(static_cast<i32>(state = state * 1664525u + 1013904223u)) * 0x1p-31f;
  return v;
}

inline Tensor matrix(std::vector<float>& v, i64 cols) {
  return view(v.data(), DType::f32, static_cast<i64>(v.size()) / cols, cols);
}

// Median seconds of each side over `rounds` rounds, after one that does not count.
inline std::vector<double> median_seconds(int rounds, const std::vector<std::function<void()>>& sides) {
  using Clock = std::chrono::steady_clock;
  std::vector<std::vector<double>> times(sides.size());
  for (int r = -1; r < rounds; ++r)
    for (size_t i = 0; i < sides.size(); ++i) {
      const Clock::time_point start = Clock::now();
      sides[i]();
      if (r >= 0) times[i].push_back(std::chrono::duration<double>(Clock::now() - start).count());
    }
  std::vector<double> medians;
  for (std::vector<double>& t : times) {
    std::nth_element(t.begin(), t.begin() + rounds / 2, t.end());
    medians.push_back(t[rounds / 2]);
  }
  return medians;
}

}  // namespace signround
