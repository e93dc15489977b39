// Elementary functions without branches, so that loops over them become vector code. For float: within 2 ulp
// (tests/test_attention.cpp measures it); any other scalar uses the function of that name for its type.
#pragma once
#include <cmath>

#include "ops/cpu/microkernel.h"

namespace signround::SIGNROUND_ISA {

template <class T>
inline T exp_(T x) {
  using std::exp;
  return exp(x);
}
template <class T>
inline T tanh_(T x) {
  using std::tanh;
  return tanh(x);
}
template <class T>
inline T erf_(T x) {
  using std::erf;
  return erf(x);
}
template <class T>
inline T log_(T x) {
  using std::log;
  return log(x);
}

// e^x = 2^n e^r, n = round(x / ln 2), |r| <= ln 2 / 2, with a polynomial of degree 6 for e^r (Chebyshev nodes, error 8e-9).
// Overflow gives infinity, denormal results are rounded as usual, NaN stays NaN.
[[gnu::always_inline]] inline float exp_(float x) {
  constexpr float kRound = 0x1.8p23f;  // adding it leaves the nearest integer in the low bits
  x = x < -104.0f ? -104.0f : x;
  x = x > 89.0f ? 89.0f : x;
  const float shifted = mul_add(x, 1.44269504f, kRound), n = shifted - kRound;
  // ln 2 in two parts; n times the larger one is exact.
  const float r = mul_add(n, -1.42860682e-6f, mul_add(n, -0.693145751953125f, x));
  float p = 1.392692661e-3f;
  p = mul_add(p, r, 8.363773874e-3f);
  p = mul_add(p, r, 4.166655011e-2f);
  p = mul_add(p, r, 1.666657338e-1f);
  p = mul_add(p, r, 0.5f);
  p = mul_add(p * r, r, r) + 1.0f;
  const i32 whole = std::bit_cast<i32>(shifted) - std::bit_cast<i32>(kRound), half = whole >> 1;
  return p * std::bit_cast<float>((half + 127) << 23) * std::bit_cast<float>((whole - half + 127) << 23);
}

// tanh x = x + x^3 P(x^2) for |x| < 5/8 (Chebyshev nodes), else 1 - 2 / (e^2|x| + 1) with the sign of x.
[[gnu::always_inline]] inline float tanh_(float x) {
  const float a = std::bit_cast<float>(std::bit_cast<u32>(x) & 0x7FFFFFFFu), u = x * x;
  float p = 2.292744813e-3f;
  p = mul_add(p, u, -8.343945513e-3f);
  p = mul_add(p, u, 2.176891865e-2f);
  p = mul_add(p, u, -5.395925958e-2f);
  p = mul_add(p, u, 1.333330356e-1f);
  p = mul_add(p, u, -3.333333317e-1f);
  const float near = mul_add(x * u, p, x), far = 1.0f - 2.0f / (exp_(2.0f * a) + 1.0f);
  const float signed_far = std::bit_cast<float>(std::bit_cast<u32>(far) | (std::bit_cast<u32>(x) & 0x80000000u));
  return a < 0.625f ? near : signed_far;
}

// 1 / (1 + e^-x); silu(x) = x sigmoid(x), and gelu_tanh(x) = x sigmoid(2 sqrt(2/pi) (x + 0.044715 x^3)).
template <class T>
[[gnu::always_inline]] inline T sigmoid_(T x) {
  return T(1) / (T(1) + exp_(-x));
}

}  // namespace signround::SIGNROUND_ISA
