// The gated unit, the residual, the bias, the soft limit: elementwise.
#pragma once
#include "ops/cpu/math.h"
#include "ops/cpu/norm.h"

namespace signround::SIGNROUND_ISA {

// f(first, last) over ranges of n elements.
template <class F>
inline void for_elements(i64 n, F f) { parallel_ranges(n, kTaskElements, f); }

// out = term(i) or out += term(i); nothing if out is null.
template <class T, class F>
inline void accumulate(T* out, Acc acc, i64 first, i64 last, F term) {
  if (out == nullptr) return;
  if (acc == Acc::set)
    for (i64 i = first; i < last; ++i) out[i] = term(i);
  else
    for (i64 i = first; i < last; ++i) out[i] += term(i);
}

// y = a + b
template <class T>
void add(T* y, const T* a, const T* b, i64 n) {
  for_elements(n, [&](i64 first, i64 last) { accumulate(y, Acc::set, first, last, [&](i64 i) { return a[i] + b[i]; }); });
}

// y += b, row by row
template <class T, class W>
void add_bias(T* y, const W* b, i64 rows, i64 cols) {
  for_rows(rows, cols, [&](i64 row) {
    for (i64 i = 0; i < cols; ++i) y[row * cols + i] += cast<T>(b[i]);
  });
}

// da = dy
template <class T>
void add_bwd(T* da, Acc acc, const T* dy, i64 n) {
  for_elements(n, [&](i64 first, i64 last) { accumulate(da, acc, first, last, [&](i64 i) { return dy[i]; }); });
}

// Silu and GeluTanh are x sigmoid(inner(x)):   inner = x,   inner = 2 sqrt(2/pi) (x + 0.044715 x^3).
// act'(x) = s + x s (1 - s) inner'(x),   s = sigmoid(inner(x))
template <class Inner>
struct SigmoidUnit {
  template <class T>
  static T value(T x) { return x * sigmoid_(Inner::inner(x)); }
  template <class T>
  static T slope(T x) {
    const T s = sigmoid_(Inner::inner(x));
    return s + x * s * (T(1) - s) * Inner::inner_slope(x);
  }
};
struct Linear {
  template <class T>
  static T inner(T x) { return x; }
  template <class T>
  static T inner_slope(T) { return T(1); }
};
struct Cubic {
  static constexpr double kScale = 1.5957691216057308, kCube = 0.044715;  // 2 sqrt(2/pi)
  template <class T>
  static T inner(T x) { return T(kScale) * x * (T(1) + T(kCube) * x * x); }
  template <class T>
  static T inner_slope(T x) { return T(kScale) * (T(1) + T(3 * kCube) * x * x); }
};
using Silu = SigmoidUnit<Linear>;
using GeluTanh = SigmoidUnit<Cubic>;

// x Phi(x);   act'(x) = Phi(x) + x phi(x),   Phi and phi the normal distribution and its density
struct Gelu {
  static constexpr double kRootHalf = 0.7071067811865476, kDensity = 0.3989422804014327;  // 1/sqrt(2), 1/sqrt(2 pi)
  template <class T>
  static T below(T x) { return T(0.5) * (T(1) + erf_(x * T(kRootHalf))); }
  template <class T>
  static T value(T x) { return x * below(x); }
  template <class T>
  static T slope(T x) { return below(x) + x * T(kDensity) * exp_(T(-0.5) * x * x); }
};

struct Relu {
  template <class T>
  static T value(T x) { return x > T(0) ? x : T(0); }
  template <class T>
  static T slope(T x) { return x > T(0) ? T(1) : T(0); }
};

template <class Act, class T>
inline T activate(T x) { return Act::value(x); }

template <class Act, class T>
inline T activate_slope(T x) { return Act::slope(x); }

// f(Act{}) for the activation of that name.
template <class F>
inline void with_act(Activation act, F f) {
  switch (act) {
    case Activation::silu: return f(Silu{});
    case Activation::gelu_tanh: return f(GeluTanh{});
    case Activation::gelu: return f(Gelu{});
    case Activation::relu: return f(Relu{});
  }
}

// y = act(x)
template <class Act, class T>
void act(T* y, const T* x, i64 n) {
  for_elements(n, [&](i64 first, i64 last) {
    accumulate(y, Acc::set, first, last, [&](i64 i) { return activate<Act>(x[i]); });
  });
}

// dx = dy o act'(x)
template <class Act, class T>
void act_bwd(T* dx, Acc acc, const T* dy, const T* x, i64 n) {
  for_elements(n, [&](i64 first, i64 last) {
    accumulate(dx, acc, first, last, [&](i64 i) { return dy[i] * activate_slope<Act>(x[i]); });
  });
}

// y = act(g) o u
template <class Act, class T>
void glu(T* y, const T* g, const T* u, i64 n) {
  for_elements(n, [&](i64 first, i64 last) {
    accumulate(y, Acc::set, first, last, [&](i64 i) { return activate<Act>(g[i]) * u[i]; });
  });
}

// dg = dy o u o act'(g),   du = dy o act(g);   either may be null, dg may be g and du may be u: both are computed, for a short
// stretch, before either is written.
template <class Act, class T>
void glu_bwd(T* dg, T* du, Acc acc_g, Acc acc_u, const T* dy, const T* g, const T* u, i64 n) {
  constexpr i64 kStretch = 256;
  for_elements(n, [&](i64 first, i64 last) {
    T gate[kStretch], up[kStretch];
    for (i64 at = first; at < last; at += kStretch) {
      const i64 end = at + kStretch < last ? at + kStretch : last;
      for (i64 i = at; i < end; ++i) gate[i - at] = dy[i] * u[i] * activate_slope<Act>(g[i]);
      for (i64 i = at; i < end; ++i) up[i - at] = dy[i] * activate<Act>(g[i]);
      accumulate(dg, acc_g, at, end, [&](i64 i) { return gate[i - at]; });
      accumulate(du, acc_u, at, end, [&](i64 i) { return up[i - at]; });
    }
  });
}

// y = cap tanh(x / cap)
template <class T>
void softcap(T* y, const T* x, T cap, i64 n) {
  for_elements(n, [&](i64 first, i64 last) {
    accumulate(y, Acc::set, first, last, [&](i64 i) { return cap * tanh_(x[i] / cap); });
  });
}

// dx = dy o (1 - (y / cap)^2)
template <class T>
void softcap_bwd(T* dx, Acc acc, const T* dy, const T* y, T cap, i64 n) {
  for_elements(n, [&](i64 first, i64 last) {
    accumulate(dx, acc, first, last, [&](i64 i) { return dy[i] * (T(1) - y[i] / cap * (y[i] / cap)); });
  });
}

}  // namespace signround::SIGNROUND_ISA
