// Dual numbers a + b·eps with eps² = 0: the kernels, which are templates on the scalar, run on them and return the exact
// directional derivative next to the value. The dot test  <J u, dy> == <u, J^T dy>  then checks a hand-derived backward to
// rounding error.
#pragma once
#include <cmath>
#include <compare>
#include <numbers>

#include "base/dtype.h"

namespace signround {

struct Dual {
  double v = 0, d = 0;  // value and derivative

  Dual() = default;
  constexpr Dual(double value, double derivative = 0) : v(value), d(derivative) {}
  explicit operator double() const { return v; }  // drops the derivative
  explicit operator float() const { return static_cast<float>(v); }

  Dual operator-() const { return {-v, -d}; }
  Dual& operator+=(Dual b) { return v += b.v, d += b.d, *this; }
  Dual& operator-=(Dual b) { return v -= b.v, d -= b.d, *this; }
  Dual& operator*=(Dual b) { return d = d * b.v + v * b.d, v *= b.v, *this; }
  Dual& operator/=(Dual b) { return v /= b.v, d = (d - v * b.d) / b.v, *this; }
};

inline Dual operator+(Dual a, Dual b) { return a += b; }
inline Dual operator-(Dual a, Dual b) { return a -= b; }
inline Dual operator*(Dual a, Dual b) { return a *= b; }
inline Dual operator/(Dual a, Dual b) { return a /= b; }

// Comparisons look at the value: a branch is taken where the base point takes it.
inline bool operator==(Dual a, Dual b) { return a.v == b.v; }
inline std::partial_ordering operator<=>(Dual a, Dual b) { return a.v <=> b.v; }

// f(a) with f'(a): found by argument-dependent lookup next to `using std::exp;`.
inline Dual exp(Dual a) { return {std::exp(a.v), std::exp(a.v) * a.d}; }
inline Dual log(Dual a) { return {std::log(a.v), a.d / a.v}; }
inline Dual sqrt(Dual a) { return {std::sqrt(a.v), a.d / (2 * std::sqrt(a.v))}; }
inline Dual tanh(Dual a) {
  const double t = std::tanh(a.v);
  return {t, (1 - t * t) * a.d};
}
inline Dual erf(Dual a) { return {std::erf(a.v), 2 * std::numbers::inv_sqrtpi * std::exp(-a.v * a.v) * a.d}; }
inline Dual cos(Dual a) { return {std::cos(a.v), -std::sin(a.v) * a.d}; }
inline Dual sin(Dual a) { return {std::sin(a.v), std::cos(a.v) * a.d}; }
inline Dual abs(Dual a) { return a.v < 0 ? -a : a; }
inline bool isfinite(Dual a) { return std::isfinite(a.v) && std::isfinite(a.d); }

template <> inline constexpr DType dtype_of<Dual> = DType::dual;

}  // namespace signround
