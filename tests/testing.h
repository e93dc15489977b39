// What the tests share: skipping, random numbers, error measures.
#pragma once
#include <algorithm>
#include <cmath>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/tensor.h"
#include "base/threads.h"
#include "dual.h"

namespace signround {

// Counts the running test case as skipped rather than passed and prints why:   if (!there) return skip("no GPU here");
void skip(std::string_view reason);

// Runs with n threads until the end of the scope.
struct Threads {
  const int before = thread_count();
  explicit Threads(int n) { set_thread_count(n); }
  ~Threads() { set_thread_count(before); }
};

// The same numbers on every run and every library: uniform in [low, high).
struct Random {
  std::mt19937_64 engine;
  explicit Random(u64 seed = 1) : engine(seed) {}
  double uniform(double low = -1, double high = 1) {
    return low + (high - low) * static_cast<double>(engine() >> 11) * 0x1p-53;
  }
  std::vector<double> values(i64 n, double low = -1, double high = 1) {
    std::vector<double> x(static_cast<size_t>(n));
    for (double& v : x) v = uniform(low, high);
    return x;
  }
};

template <class To, class From>
std::vector<To> converted(const std::vector<From>& x) {
  std::vector<To> y;
  for (const From& v : x) {
    if constexpr (std::is_same_v<To, Dual> || std::is_same_v<To, From>) y.push_back(To(v));
    else if constexpr (std::is_same_v<To, double>) y.push_back(static_cast<double>(v));
    else y.push_back(To(static_cast<float>(v)));
  }
  return y;
}

template <class T>
Tensor tensor(std::vector<T>& x, i64 rows, i64 cols) {
  check(static_cast<i64>(x.size()) == rows * cols, ErrorKind::bug, "test: ", x.size(), " values for ", rows, " x ", cols);
  return view(x.data(), dtype_of<T>, rows, cols);
}
template <class T>
Tensor tensor(std::vector<T>& x) { return view(x.data(), dtype_of<T>, static_cast<i64>(x.size())); }

inline double dot(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}
inline double norm(const std::vector<double>& a) { return std::sqrt(dot(a, a)); }

// |x - y|, as a share of |y|: the distance of whole vectors, so that an element near zero does not count for more than it is.
template <class A, class B>
double distance(const std::vector<A>& x, const std::vector<B>& y) {
  std::vector<double> d = converted<double>(x), e = converted<double>(y);
  const double size = norm(e);
  for (size_t i = 0; i < d.size(); ++i) d[i] -= e[i];
  return norm(d) / (size > 0 ? size : 1);
}

// Rounding of the quantizer on dual numbers: the surrogate in which round(t) is t + c with c = round(t) - t frozen, so that its
// derivative is 1. Found by the kernels through argument-dependent lookup.
inline Dual nearest(Dual x) { return {std::nearbyint(x.v), x.d}; }
inline Dual nearest_f16(Dual x) { return {static_cast<double>(static_cast<float>(f16(static_cast<float>(x.v)))), x.d}; }

}  // namespace signround
