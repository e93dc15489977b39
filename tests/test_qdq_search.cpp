// Where tuning starts a group's range: the search against all trials, and the costs that it weighs errors by.
#include <doctest/doctest.h>

#include <algorithm>
#include <span>

#include "ops/cpu/select.h"
#include "qdq_linear.h"
#include "quant/scheme.h"

using namespace signround;
using namespace signround::SIGNROUND_ISA;

// Against every trial of every group, with the formulas as they stand in qdq_math.h and in double.
TEST_CASE("search: it finds the factor with the least weighed error, never a worse one than 1") {
  Random random;
  const auto search = [&]<class W>(W, i64 rows, i64 cols, const QuantSpec& spec, double low, double high) {
    std::vector<float> h = converted<float>(random.values(cols, 0, 5));
    h[0] = 0;
    Linear<W> l(rows, cols, spec, converted<W>(random.values(rows * cols, low, high)));
    for (i64 i = 0; i < l.groups; ++i) l.w[i * 7 % l.w.size()] = W(static_cast<float>(3 * high));  // outliers to clip
    for (std::string_view isa : supported_isas()) {
      CAPTURE(isa);
      CAPTURE(cols);
      CAPTURE(text_of(spec));
      l.search(*make_cpu_backend(Precision::f32, isa), h);
      CHECK(l.lo == l.hi);
      bool least = true, better_than_one = true, formula = true;
      for (i64 group = 0; group < l.groups; ++group) {
        const i64 per_row = spec.groups(cols), first = group % per_row * spec.group_of(cols), at = group / per_row * cols + first;
        const i64 n = std::min(spec.group_of(cols), cols - first);
        const auto grid = [&](float f) { return grid_of(Range<float>{l.wmin[group], l.wmax[group], f, f}, spec); };
        const auto exact = [&](float f) {
          const Grid<float> g = grid(f);
          double sum = 0;
          for (i64 i = 0; i < n; ++i) {
            const double w = cast<float>(l.w[at + i]), q = level_of(static_cast<float>(w), 0.0f, g).q;
            sum += h[first + i] * (g.scale * q - w) * (g.scale * q - w);
          }
          return sum;
        };
        const auto trial = [&](float f) {
          const Grid<float> g = grid(f);
          return Trial<float>{f, lane_sum<float>(n, [&](i64 i) { return error_of(cast<float>(l.w[at + i]), h[first + i], g); })};
        };
        Trial<float> best = trial(1);
        double lowest = exact(1);
        for (int k = kFirstTrial; k <= kLastTrial; ++k) {
          best = better(best, trial(trial_factor<float>(k)));
          lowest = std::min(lowest, exact(trial_factor<float>(k)));
        }
        formula = formula && l.lo[group] == best.factor;
        least = least && exact(l.lo[group]) <= lowest * (1 + 1e-5);
        better_than_one = better_than_one && exact(l.lo[group]) <= exact(1) * (1 + 1e-5);
      }
      CHECK(formula);
      CHECK(least);
      CHECK(better_than_one);
    }
  };
  for (int bits : {2, 3, 4, 8})
    for (bool symmetric : {true, false}) {
      search(bf16{}, 9, 256, {bits, 64, symmetric}, -0.05, 0.07);
      search(f16{}, 7, 97, {bits, 32, symmetric}, -0.07, 0.05);
      search(0.0f, 3, 600, {bits, -1, symmetric}, -0.01, 0.02);
    }
  // Where nothing is better than the whole range it stays: no weights, none that cost anything, errors beyond float.
  for (const auto& [weight, cost] : {std::pair{0.0f, 1.0f}, {0.5f, 0.0f}, {1e30f, 1.0f}}) {
    Linear<float> l(1, 4, QuantSpec{.bits = 4, .group = -1}, {weight, -weight / 3, weight / 5, 0});
    std::vector<float> h(4, cost);
    l.search(*make_cpu_backend(Precision::f32), h);
    CHECK(l.lo[0] == 1);
    CHECK(l.hi[0] == 1);
  }
}

TEST_CASE("search: costs grow by the squares of a column, the same for any number of threads") {
  Random random;
  const std::vector<float> x = converted<float>(random.values(100 * 131));
  std::vector<float> one;
  for (int threads : {1, 2, 3}) {
    const Threads use(threads);
    std::vector<float> h(131, 2.0f), copy = x;
    make_cpu_backend(Precision::f32)->column_squares(tensor(h), tensor(copy, 100, 131));
    for (size_t c = 0; c < h.size(); ++c) {
      double sum = 2;
      for (size_t row = 0; row < 100; ++row) sum += static_cast<double>(x[row * 131 + c]) * x[row * 131 + c];
      CHECK(h[c] == doctest::Approx(sum).epsilon(1e-6));
    }
    if (one.empty()) one = h;
    CHECK(h == one);
  }
}
