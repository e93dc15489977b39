#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "base/threads.h"
#include "dual.h"
#include "ops/cpu/attention.h"
#include "ops/cpu/select.h"

using namespace signround;
using namespace signround::SIGNROUND_ISA;

namespace {

struct Random {
  u64 state;
  double operator()() {  // uniform in [-1, 1)
    state = state * 6364136223846793005u + 1442695040888963407u;
    return static_cast<double>(static_cast<i64>(state) >> 11) * 0x1p-52;
  }
};

template <class T>
struct Arrays {  // everything the op reads and writes; the numbers differ between seeds, but not between types
  i64 nq, nk, nl;
  std::vector<T> q, k, v, dout, o, lse, delta, dq, dk, dv;
  Arrays(const AttentionShape& s, u64 seed)
      : nq(s.batch * s.tokens * s.heads * s.head_dim), nk(s.batch * s.tokens * s.kv_heads * s.head_dim),
        nl(s.batch * s.tokens * s.heads), o(nq), lse(nl), delta(nl) {
    Random random{seed};
    for (std::vector<T>* x : {&q, &dout, &dq, &k, &v, &dk, &dv}) {
      x->resize(x == &q || x == &dout || x == &dq ? nq : nk);
      for (T& y : *x) y = T(static_cast<float>(random() * 2));
    }
  }
  void forward(const AttentionShape& s) { attention(o.data(), lse.data(), q.data(), k.data(), v.data(), s); }
  void backward(const AttentionShape& s, Acc a, Acc b, Acc c) {
    attention_bwd(dq.data(), dk.data(), dv.data(), a, b, c, delta.data(), dout.data(), q.data(), k.data(), v.data(), o.data(),
                  lse.data(), s);
  }
};

// The textbook: every score of a row at once, in double.
void naive(Arrays<double>& a, const AttentionShape& s) {
  const i64 d = s.head_dim, ldq = s.heads * d, ldk = s.kv_heads * d;
  for (i64 b = 0; b < s.batch; ++b)
    for (i64 h = 0; h < s.heads; ++h)
      for (i64 i = 0; i < s.tokens; ++i) {
        const i64 row = b * s.tokens + i, kv = h / (s.heads / s.kv_heads);
        std::vector<double> p(s.tokens, -std::numeric_limits<double>::infinity());
        double sum = 0;
        for (i64 j = 0; j < s.tokens; ++j) {
          if ((s.causal && j > i) || (s.window > 0 && j <= i - s.window)) continue;
          double x = 0;
          for (i64 c = 0; c < d; ++c) x += a.q[row * ldq + h * d + c] * a.k[(b * s.tokens + j) * ldk + kv * d + c];
          x *= double{s.scale};
          p[j] = s.softcap > 0 ? double{s.softcap} * std::tanh(x / double{s.softcap}) : x;
          sum += std::exp(p[j]);
        }
        a.lse[row * s.heads + h] = std::log(sum);
        for (i64 c = 0; c < d; ++c) {
          double& out = a.o[row * ldq + h * d + c] = 0;
          for (i64 j = 0; j < s.tokens; ++j) out += std::exp(p[j]) / sum * a.v[(b * s.tokens + j) * ldk + kv * d + c];
        }
      }
}

template <class T, class U>
double error(const std::vector<T>& got, const std::vector<U>& want) {  // largest difference, relative to the largest value or 1
  double worst = 0, size = 1;
  for (size_t i = 0; i < want.size(); ++i) {
    const double difference = std::abs(static_cast<double>(got[i]) - static_cast<double>(want[i]));
    worst = difference <= worst ? worst : difference;  // a NaN stays
    size = std::max(size, std::abs(static_cast<double>(want[i])));
  }
  return worst / size;
}

AttentionShape shape(i64 batch, i64 tokens, i64 heads, i64 kv_heads, i64 d, i64 window, float softcap, bool causal) {
  return {batch, tokens, heads, kv_heads, d, 1 / std::sqrt(static_cast<float>(d)), window, softcap, causal};
}

const std::vector<AttentionShape> kShapes = {
    shape(1, 1, 1, 1, 1, 0, 0, true),     shape(2, 7, 2, 1, 5, 0, 0, true),     shape(1, 33, 3, 3, 16, 0, 0, false),
    shape(1, 130, 4, 2, 20, 0, 0, true),  shape(2, 97, 3, 1, 8, 10, 0, true),   shape(1, 150, 2, 2, 33, 1, 0, true),
    shape(1, 140, 2, 1, 64, 0, 5, true),  shape(1, 129, 2, 1, 12, 70, 3, true), shape(1, 64, 1, 1, 7, 9, 2, false),
};

}  // namespace

TEST_CASE("exp, tanh and sigmoid for float are within 2 ulp") {
  const auto ulps = [](float got, double want) {
    const float near = static_cast<float>(want);
    return std::abs(got - want) / (std::nextafter(std::abs(near), HUGE_VALF) - std::abs(near));
  };
  double worst = 0;
  for (float x = -86; x < 88; x += 0.00737f) worst = std::max(worst, ulps(exp_(x), std::exp(double{x})));
  for (float x = -10; x < 10; x += 0.00037f) worst = std::max(worst, ulps(tanh_(x), std::tanh(double{x})));
  for (float x = 1e-30f; x < 1; x *= 1.37f) worst = std::max(worst, ulps(tanh_(x), std::tanh(double{x})));
  CHECK(worst < 1.5);
  for (float x = -80; x < 80; x += 0.0737f) worst = std::max(worst, ulps(sigmoid_(x), 1 / (1 + std::exp(-double{x}))));
  CHECK(worst < 2.5);
  CHECK(exp_(-HUGE_VALF) == 0);
  CHECK(exp_(-1000.0f) == 0);
  CHECK(exp_(89.5f) == HUGE_VALF);
  CHECK(exp_(0.0f) == 1);
  CHECK(std::isnan(exp_(NAN)));
  CHECK(std::isnan(tanh_(NAN)));
  CHECK(tanh_(-100.0f) == -1);
}

TEST_CASE("attention: forward against the textbook, any size, window, softcap and grouping") {
  for (const AttentionShape& s : kShapes) {
    Arrays<double> want(s, 1), got(s, 1);
    Arrays<float> fast(s, 1);
    naive(want, s);
    got.forward(s);
    fast.forward(s);
    INFO("tokens ", s.tokens, ", d ", s.head_dim, ", window ", s.window);
    CHECK(error(got.o, want.o) < 1e-13);
    CHECK(error(got.lse, want.lse) < 1e-13);
    CHECK(error(fast.o, want.o) < 2e-6);
    CHECK(error(fast.lse, want.lse) < 1e-6);
  }
}

TEST_CASE("attention: the backward is the transpose of the derivative") {
  for (const AttentionShape& s : kShapes) {
    Arrays<double> a(s, 1);
    const Arrays<double> before = a;
    a.forward(s);
    a.backward(s, Acc::set, Acc::set, Acc::set);

    // <J u, do> from one forward with dual numbers, <u, J^T do> from the backward, for each input on its own.
    for (int input = 0; input < 3; ++input) {
      Arrays<Dual> dual(s, 1);
      Random random{9};
      double right = 0, size = 0;
      std::vector<Dual>& x = input == 0 ? dual.q : input == 1 ? dual.k : dual.v;
      const std::vector<double>& dx = input == 0 ? a.dq : input == 1 ? a.dk : a.dv;
      for (size_t i = 0; i < x.size(); ++i) x[i].d = random(), right += x[i].d * dx[i], size += std::abs(x[i].d * dx[i]);
      dual.forward(s);
      double left = 0;
      for (size_t i = 0; i < dual.o.size(); ++i) left += dual.o[i].d * a.dout[i];
      INFO("tokens ", s.tokens, ", d ", s.head_dim, ", window ", s.window, ", input ", input);
      CHECK(std::abs(left - right) <= 1e-12 * (size + 1));
    }

    Arrays<double> added = before;  // += keeps what was there; a gradient not wanted is left alone
    added.o = a.o, added.lse = a.lse;
    added.backward(s, Acc::add, Acc::add, Acc::add);
    for (i64 i = 0; i < a.nq; ++i) added.dq[i] -= before.dq[i];
    for (i64 i = 0; i < a.nk; ++i) added.dk[i] -= before.dk[i], added.dv[i] -= before.dv[i];
    CHECK(error(added.dq, a.dq) < 1e-13);
    CHECK(error(added.dk, a.dk) < 1e-13);
    CHECK(error(added.dv, a.dv) < 1e-13);
    Arrays<double> some = before;
    some.o = a.o, some.lse = a.lse;
    attention_bwd<double>(nullptr, some.dk.data(), nullptr, Acc::set, Acc::set, Acc::set, some.delta.data(), some.dout.data(),
                          some.q.data(), some.k.data(), some.v.data(), some.o.data(), some.lse.data(), s);
    CHECK(some.dk == a.dk);

    Arrays<float> fast(s, 1);
    fast.forward(s);
    fast.backward(s, Acc::set, Acc::set, Acc::set);
    CHECK(error(fast.dq, a.dq) < 5e-6);
    CHECK(error(fast.dk, a.dk) < 5e-6);
    CHECK(error(fast.dv, a.dv) < 5e-6);
  }
}

TEST_CASE("attention: the kernels of every instruction set that runs here") {
  for (const AttentionShape& s : kShapes) {
    Arrays<double> want(s, 1);
    want.forward(s);
    want.backward(s, Acc::set, Acc::set, Acc::set);
    for (const std::string_view isa : supported_isas()) {
      const std::unique_ptr<Backend> backend = make_cpu_backend(Precision::f32, isa);
      Arrays<float> a(s, 1);
      const auto tensor = [&](std::vector<float>& x) {
        const i64 rows = s.batch * s.tokens;
        return view(x.data(), DType::f32, rows, static_cast<i64>(x.size()) / rows);
      };
      backend->attention(tensor(a.o), tensor(a.lse), tensor(a.q), tensor(a.k), tensor(a.v), s);
      backend->attention_bwd(tensor(a.dq), tensor(a.dk), tensor(a.dv), Acc::set, Acc::set, Acc::set, tensor(a.delta),
                             tensor(a.dout), tensor(a.q), tensor(a.k), tensor(a.v), tensor(a.o), tensor(a.lse), s);
      INFO(backend->name(), ", tokens ", s.tokens, ", d ", s.head_dim, ", window ", s.window);
      CHECK(error(a.o, want.o) < 2e-6);
      CHECK(error(a.lse, want.lse) < 1e-6);
      CHECK(error(a.dq, want.dq) < 5e-6);
      CHECK(error(a.dk, want.dk) < 5e-6);
      CHECK(error(a.dv, want.dv) < 5e-6);
    }
  }
}

TEST_CASE("attention: scores far from zero neither overflow nor vanish") {
  const AttentionShape s = shape(1, 70, 1, 1, 8, 0, 0, true);
  for (const float factor : {60.0f, -60.0f}) {
    Arrays<float> a(s, 3);
    for (float& x : a.q) x = factor * std::abs(x);
    for (float& x : a.k) x = 20 * std::abs(x);
    a.forward(s);
    a.backward(s, Acc::set, Acc::set, Acc::set);
    for (const std::vector<float>* x : {&a.o, &a.lse, &a.dq, &a.dk, &a.dv})
      CHECK(std::all_of(x->begin(), x->end(), [](float y) { return std::isfinite(y); }));
  }
}

TEST_CASE("attention: the same bits for any number of threads") {
  const AttentionShape s = shape(3, 120, 4, 2, 16, 50, 0, true);
  const int before = thread_count();
  const auto gradients = [&](int threads) {
    set_thread_count(threads);
    Arrays<float> a(s, 1);
    a.forward(s);
    a.backward(s, Acc::set, Acc::add, Acc::set);
    std::vector<float> all = a.o;
    for (const std::vector<float>* x : {&a.lse, &a.dq, &a.dk, &a.dv}) all.insert(all.end(), x->begin(), x->end());
    return all;
  };
  const std::vector<float> one = gradients(1);
  for (const int threads : {2, 5}) CHECK(gradients(threads) == one);
  set_thread_count(before);
}
