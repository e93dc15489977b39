#include <doctest/doctest.h>

#include <cmath>
#include <vector>

#include "base/error.h"
#include "base/threads.h"
#include "dual.h"
#include "ops/cpu/matmul.h"
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

template <class S>
std::vector<S> random_values(i64 n, u64 seed) {
  Random random{seed};
  std::vector<S> v(n);
  for (S& x : v) x = S(static_cast<float>(random()));
  return v;
}

// Element (row, col) of a row-major matrix or, if `flip`, of its transpose.
template <class S>
Factor<S> factor(const std::vector<S>& v, i64 rows, i64 cols, bool flip) {
  return flip ? transposed(row_major(v.data(), rows)) : row_major(v.data(), cols);
}
template <class S>
double element(Factor<S> f, i64 i, i64 j) { return static_cast<double>(widen(*f.at(i, j).data)); }
double rounded_to_bf16(double x) { return static_cast<float>(bf16(static_cast<float>(x))); }

// |c - exact| <= tolerance * sum |a||b| + |prior|, elementwise: the error bound of a dot product in any order.
template <Precision P, class T, class L, class R>
void compare(i64 m, i64 n, i64 k, bool flip_a, bool flip_b, Acc acc, bool with_bias, double tolerance) {
  const std::vector<L> a = random_values<L>(m * k, 1);
  const std::vector<R> b = random_values<R>(k * n, 2);
  const std::vector<T> bias = random_values<T>(n, 3);
  const i64 ldc = n + 3;
  std::vector<T> c = random_values<T>(m * ldc, 4);
  const std::vector<T> prior = c;
  const Factor<L> fa = factor(a, m, k, flip_a);
  const Factor<R> fb = factor(b, k, n, flip_b);
  if (with_bias) matmul<P>(c.data(), ldc, fa, fb, m, n, k, bias.data());
  else matmul<P>(c.data(), ldc, fa, fb, m, n, k, acc);
  double worst = 0;
  bool padding_kept = true;
  for (i64 i = 0; i < m; ++i) {
    for (i64 j = 0; j < n; ++j) {
      double exact = acc == Acc::add ? static_cast<double>(prior[i * ldc + j]) : with_bias ? static_cast<double>(bias[j]) : 0;
      double scale = std::abs(exact) + 1e-30;
      for (i64 l = 0; l < k; ++l) {
        double x = element(fa, i, l), y = element(fb, l, j);
        if (P == Precision::bf16 && Arithmetic<T, P>::depth == 2) x = rounded_to_bf16(x), y = rounded_to_bf16(y);
        exact += x * y, scale += std::abs(x * y);
      }
      worst = std::max(worst, std::abs(static_cast<double>(c[i * ldc + j]) - exact) / scale);
    }
    for (i64 j = n; j < ldc; ++j) padding_kept = padding_kept && c[i * ldc + j] == prior[i * ldc + j];
  }
  INFO("m ", m, ", n ", n, ", k ", k, ", flips ", flip_a, flip_b, ", bias ", with_bias, ", worst ", worst);
  CHECK(worst <= tolerance);
  CHECK(padding_kept);
}

template <Precision P, class T, class L, class R>
void compare_all(double tolerance) {
  constexpr i64 sizes[][3] = {{1, 1, 1}, {2, 3, 0}, {1, 70, 9}, {70, 1, 17}, {13, 31, 5}, {14, 32, 16}, {15, 33, 33}, {29, 97, 1},
                              {64, 80, 64}, {37, 45, 801}, {130, 257, 31}};
  for (const auto& [m, n, k] : sizes)
    for (int way = 0; way < 4; ++way) {
      compare<P, T, L, R>(m, n, k, way & 1, way & 2, Acc::set, false, tolerance);
      compare<P, T, L, R>(m, n, k, way & 1, way & 2, Acc::add, false, tolerance);
      compare<P, T, L, R>(m, n, k, way & 1, way & 2, Acc::set, true, tolerance);
    }
}

}  // namespace

TEST_CASE("matmul: every size, transpose, storage and way to accumulate") {
  compare_all<Precision::f32, float, float, float>(2e-6);
  compare_all<Precision::f32, float, bf16, float>(2e-6);
  compare_all<Precision::f32, float, f16, bf16>(2e-6);
  compare_all<Precision::f32, double, double, double>(4e-15);
  compare_all<Precision::f32, double, float, bf16>(4e-15);
  compare_all<Precision::bf16, float, float, float>(2e-6);
  compare_all<Precision::bf16, float, bf16, f16>(2e-6);
  compare_all<Precision::bf16, float, bf16, bf16>(2e-6);
  // More than one block of columns.
  compare<Precision::f32, float, float, float>(3, 3100, 40, false, true, Acc::add, false, 2e-6);
}

TEST_CASE("matmul: derivatives travel through it") {
  const i64 m = 5, n = 7, k = 9;
  std::vector<Dual> a(m * k), b(k * n), c(m * n);
  Random random{5};
  for (Dual& x : a) x = {random(), random()};
  for (Dual& x : b) x = {random(), random()};
  matmul(c.data(), n, row_major(a.data(), k), row_major(b.data(), n), m, n, k, Acc::set);
  for (i64 i = 0; i < m; ++i)
    for (i64 j = 0; j < n; ++j) {
      double d = 0;
      for (i64 l = 0; l < k; ++l) d += a[i * k + l].d * b[l * n + j].v + a[i * k + l].v * b[l * n + j].d;
      CHECK(c[i * n + j].d == doctest::Approx(d).epsilon(1e-13));
    }
}

TEST_CASE("matmul: the same bits for any number of threads, and for a row on its own") {
  const i64 m = 200, n = 300, k = 900;
  const std::vector<float> a = random_values<float>(m * k, 1), b = random_values<float>(n * k, 2);
  const auto product = [&](int threads) {
    set_thread_count(threads);
    std::vector<float> c(m * n);
    matmul<Precision::bf16>(c.data(), n, row_major(a.data(), k), transposed(row_major(b.data(), k)), m, n, k, Acc::set);
    return c;
  };
  const int before = thread_count();
  const std::vector<float> one = product(1);
  for (const int threads : {2, 3, 8}) CHECK(product(threads) == one);
  set_thread_count(before);
  std::vector<float> row(n);
  matmul<Precision::bf16>(row.data(), n, row_major(a.data() + 77 * k, k), transposed(row_major(b.data(), k)), 1, n, k, Acc::set);
  CHECK(row == std::vector<float>(one.begin() + 77 * n, one.begin() + 78 * n));
}

TEST_CASE("matmul: the kernels of every instruction set that runs here") {
  const i64 n = 131, o = 83, i = 437;
  std::vector<float> x = random_values<float>(n * i, 1), w = random_values<float>(o * i, 2), dy = random_values<float>(n * o, 3);
  const std::vector<float> bias = random_values<float>(o, 4);
  const Tensor tx = view(x.data(), DType::f32, n, i), tw = view(w.data(), DType::f32, o, i);
  const Tensor tdy = view(dy.data(), DType::f32, n, o);
  // The same in double; no sum of products is larger than the number of them.
  const std::vector<double> x64(x.begin(), x.end()), w64(w.begin(), w.end()), dy64(dy.begin(), dy.end());
  const std::vector<double> bias64(bias.begin(), bias.end());
  std::vector<double> y64(n * o), dx64(n * i, 1.0), dw64(o * i);
  const Factor<double> fx = row_major(x64.data(), i), fw = row_major(w64.data(), i), fdy = row_major(dy64.data(), o);
  matmul(y64.data(), o, fx, transposed(fw), n, o, i, bias64.data());
  matmul(dx64.data(), i, fdy, fw, n, i, o, Acc::add);
  matmul(dw64.data(), i, transposed(fdy), fx, o, i, n, Acc::set);
  const auto worst = [](const std::vector<float>& got, const std::vector<double>& want, i64 terms) {
    double d = 0;
    for (size_t j = 0; j < want.size(); ++j) d = std::max(d, std::abs(static_cast<double>(got[j]) - want[j]));
    return d / static_cast<double>(terms);
  };
  for (const std::string_view isa : supported_isas())
    for (const Precision precision : {Precision::f32, Precision::bf16}) {
      const std::unique_ptr<Backend> backend = make_cpu_backend(precision, isa);
      std::vector<float> y(n * o), dx(n * i, 1.0f), dw(o * i), b = bias;
      backend->linear(view(y.data(), DType::f32, n, o), tx, tw, view(b.data(), DType::f32, o), {});
      backend->linear_bwd_x(view(dx.data(), DType::f32, n, i), Acc::add, tdy, tw);
      backend->linear_bwd_w(view(dw.data(), DType::f32, o, i), Acc::set, tdy, tx);
      const double tolerance = precision == Precision::f32 ? 1e-7 : 5e-4;
      INFO(backend->name());
      CHECK(worst(y, y64, i) < tolerance);
      CHECK(worst(dx, dx64, o) < tolerance);
      CHECK(worst(dw, dw64, n) < tolerance);
    }
}

TEST_CASE("threads: every task once, exceptions come back, nesting is serial") {
  const int before = thread_count();
  for (const int threads : {1, 2, 5}) {
    set_thread_count(threads);
    CHECK(thread_count() == threads);
    for (const i64 n : {0, 1, 7, 1000}) {
      std::vector<int> seen(n);
      parallel_for(n, [&](i64 i) { parallel_for(2, [&](i64) { ++seen[i]; }); });
      CHECK(seen == std::vector<int>(n, 2));
    }
    CHECK_THROWS_WITH_AS(parallel_for(100, [](i64 i) { check(i != 50, ErrorKind::bug, "task ", i); }), "task 50", Error);
    std::vector<i64> ends;
    parallel_ranges(10, 4, [&](i64 first, i64 last) { if (thread_count() == 1) ends.insert(ends.end(), {first, last}); });
    if (threads == 1) CHECK(ends == std::vector<i64>{0, 4, 4, 8, 8, 10});
  }
  set_thread_count(before);
  CHECK_THROWS_AS(set_thread_count(0), Error);
  CHECK_THROWS_AS(set_thread_count(kMaxThreads + 1), Error);
}
