// Grids whose scales have two levels: their gradients in float64, twice, and their corner cases.
// Their blocks: test_gguf_kquant.cpp.
#include <doctest/doctest.h>

#include <set>

#include "export/gguf.h"
#include "ops/cpu/select.h"
#include "qdq_linear.h"

using namespace signround;
using namespace signround::SIGNROUND_ISA;

namespace {

constexpr const char* kFormats[] = {"gguf:q2_k", "gguf:q3_k", "gguf:q4_k", "gguf:q5_k", "gguf:q6_k"};
QuantSpec grid_named(const std::string& format) { return gguf_grid(format).value(); }

// A super-block, what is learned about it, and the loss's gradient.
struct Sample {
  QuantSpec spec;
  int groups = static_cast<int>(spec.shared());
  i64 n = spec.group;
  std::vector<double> w, v, g, lo, hi;

  Sample(Random& random, const QuantSpec& spec, int kind) : spec(spec) {
    const double size = std::pow(10.0, kind % 4 == 0 ? random.uniform(-6, -3) : random.uniform(-3, 2));
    v = random.values(kSuperBlock, kind % 3 == 0 ? -2 : -0.5, kind % 3 == 0 ? 2 : 0.5), g = random.values(kSuperBlock);
    lo = random.values(groups, 0.2, 1), hi = random.values(groups, 0.2, 1);
    for (int k = 0; k < groups; ++k) {
      const double own = size * std::pow(10.0, kind % 2 == 0 ? random.uniform(-3, 0) : random.uniform(-0.5, 0));
      const double shift = random.uniform(-1.5, 1.5);  // some groups lie on one side of 0
      for (i64 i = 0; i < n; ++i) w.push_back((random.uniform() + shift) * own);
    }
  }
  double low(int k) const { return std::min(0.0, *std::min_element(w.begin() + k * n, w.begin() + (k + 1) * n)); }
  double high(int k) const { return std::max(0.0, *std::max_element(w.begin() + k * n, w.begin() + (k + 1) * n)); }
};

struct Gradients {
  std::vector<double> dv, dlo, dhi;
};

Gradients gradients_of(const Sample& s, std::set<std::string>* met = nullptr) {
  SharedGrids<double> grids;
  for (int k = 0; k < s.groups; ++k) grids.range[k] = {s.low(k), s.high(k), s.lo[k], s.hi[k]};
  choose_grids(grids, s.groups, s.spec);
  Gradients out{std::vector<double>(kSuperBlock), {}, {}};
  std::array<double, 2> sums[kMostGroups], d[kMostGroups];
  for (int k = 0; k < s.groups; ++k) {
    const i64 at = k * s.n;
    sums[k] = group_bwd(s.g.data() + at, s.w.data() + at, s.v.data() + at, s.n, grids.grid[k],
                        [&](i64 first, i64 count, const double* dv) { std::copy_n(dv, count, out.dv.begin() + at + first); });
    if (!met) continue;
    const std::string kind = s.spec.symmetric ? "sym " : "asym ";
    met->insert(kind + (grids.c[k].q == grids.c[k].r ? "scale inside" : "scale outside"));
    if (s.spec.symmetric && grids.grid[k].scale < 0) met->insert("sym scale negative");
    if (grids.d.value < 0) met->insert("step negative");
    for (i64 i = 0; i < s.n; ++i) {
      const Level<double> level = level_of(s.w[at + i], s.v[at + i], grids.grid[k]);
      met->insert(kind + (level.q == level.r ? "inside" : "outside"));
    }
  }
  grids_bwd(d, sums, grids, s.groups, s.spec);
  for (int k = 0; k < s.groups; ++k) out.dlo.push_back(d[k][0]), out.dhi.push_back(d[k][1]);
  if (met) met->insert(grids.d.free ? "step free" : "step held");
  return out;
}

// The loss <g, wq> by a program of its own, written from the definition in plain double. The first run records what rounding
// added, which side of a bound each value was held at and which group decided a step; later runs hold to these decisions: that is
// the function whose derivative the straight-through estimator takes.
class Surrogate {
 public:
  explicit Surrogate(const Sample& s) : s_(s) { loss(s.v, s.lo, s.hi), first_ = false; }

  double loss(const std::vector<double>& v, const std::vector<double>& lo, const std::vector<double>& hi) {
    at_ = 0;
    const bool sym = s_.spec.symmetric;
    const double top = std::pow(2, s_.spec.bits) - 1, middle = (top + 1) / 2, most = std::pow(2, s_.spec.scale_bits - sym) - !sym;
    std::vector<double> scale, offset;
    for (int k = 0; k < s_.groups; ++k) {
      const double mn = s_.low(k) * lo[k], mx = s_.high(k) * hi[k];
      offset.push_back(sym ? 0 : -mn);
      scale.push_back(!sym ? (mx - mn) / top : decide(mx < -mn) ? -mn / middle : -mx / middle);
    }
    const double d = step(scale, sym ? -most : most), e = sym ? 1 : step(offset, most);
    double sum = 0;
    for (int k = 0; k < s_.groups; ++k) {
      const bool below = sym && decide(scale[k] / d < 0);
      const double c = held(rounded(scale[k] / d), below ? -most : 1, below ? -1 : most - sym);
      const double o = sym ? 0 : e * held(rounded(offset[k] / e), 0, most);
      for (i64 i = k * s_.n; i < (k + 1) * s_.n; ++i) {
        const double r = rounded((s_.w[i] + o) / (d * c) + v[i]);
        const double q = held(r, sym ? -middle : 0, sym ? middle - 1 : top);
        sum += s_.g[i] * (d * c * q - o);
        if (first_) size_ += std::abs(s_.g[i]) * (std::abs(d * c * q) + o);
      }
    }
    return sum;
  }
  double size() const { return size_; }  // sum of the sizes of the loss's terms

 private:
  double remembered(double fresh) {
    if (first_) memory_.push_back(fresh);
    return memory_[at_++];
  }
  bool decide(bool fresh) { return remembered(fresh) != 0; }
  double rounded(double x) { return x + remembered(std::nearbyint(x) - x); }
  double held(double x, double low, double high) {
    const double side = remembered(x < low ? -1 : x > high ? 1 : 0);
    return side < 0 ? low : side > 0 ? high : x;
  }
  double step(const std::vector<double>& x, double unit) {
    size_t pivot = 0;
    for (size_t k = 1; k < x.size(); ++k)
      if (s_.spec.symmetric ? std::abs(x[k]) > std::abs(x[pivot]) : x[k] > x[pivot]) pivot = k;
    const double raw = x[static_cast<size_t>(remembered(static_cast<double>(pivot)))] / unit;
    const double half = raw + remembered(static_cast<float>(f16(static_cast<float>(raw))) - raw);
    return decide(half < 0) ? held(half, -65504, -0x1p-24) : held(half, 0x1p-24, 65504);
  }

  const Sample& s_;
  bool first_ = true;
  double size_ = 0;
  std::vector<double> memory_;
  size_t at_ = 0;
};

}  // namespace

TEST_CASE("kquant: gradients are the transpose of the surrogate's derivative") {
  Random random;
  std::set<std::string> met;
  for (int trial = 0; trial < 500; ++trial) {
    const Sample s(random, grid_named(kFormats[trial % 5]), trial / 5);
    const Gradients backward = gradients_of(s, &met);
    const std::vector<double> dv = random.values(kSuperBlock), dlo = random.values(s.groups), dhi = random.values(s.groups);
    SharedGrids<Dual> grids;
    for (int k = 0; k < s.groups; ++k) grids.range[k] = {s.low(k), s.high(k), {s.lo[k], dlo[k]}, {s.hi[k], dhi[k]}};
    choose_grids(grids, s.groups, s.spec);
    std::vector<Dual> w = converted<Dual>(s.w), v = converted<Dual>(s.v), wq(w.size());
    double forward = 0, magnitude = 1e-300;
    for (int k = 0; k < s.groups; ++k) {
      for (i64 i = k * s.n; i < (k + 1) * s.n; ++i) v[i].d = dv[i];
      group_qdq(wq.data() + k * s.n, w.data() + k * s.n, v.data() + k * s.n, s.n, grids.grid[k]);
      for (i64 i = k * s.n; i < (k + 1) * s.n; ++i) {
        const Level<Dual> level = level_of(w[i], v[i], grids.grid[k]);
        forward += wq[i].d * s.g[i];
        magnitude += std::abs(wq[i].d * s.g[i]) + (std::abs(level.ratio.v) + 64) * (std::abs(grids.grid[k].scale.v) +
                     std::abs(grids.grid[k].scale.d));
      }
    }
    CAPTURE(trial);
    CHECK(std::abs(forward - dot(backward.dv, dv) - dot(backward.dlo, dlo) - dot(backward.dhi, dhi)) <= 1e-12 * magnitude);
  }
  for (const char* kind : {"sym inside", "sym outside", "asym inside", "asym outside", "sym scale inside", "sym scale outside",
                           "asym scale inside", "asym scale outside", "sym scale negative", "step negative", "step free",
                           "step held"})
    CHECK_MESSAGE(met.count(kind) == 1, kind);
}

TEST_CASE("kquant: gradients are the finite differences of an independent surrogate") {
  Random random;
  for (int trial = 0; trial < 40; ++trial) {
    const Sample s(random, grid_named(kFormats[trial % 5]), trial / 5);
    CAPTURE(trial);
    const Gradients ours = gradients_of(s);
    Surrogate surrogate(s);
    const auto compare = [&](const std::vector<double>& x, const std::vector<double>& want, auto loss) {
      std::vector<double> got;
      for (size_t i = 0; i < x.size(); ++i) {
        std::vector<double> up = x, down = x;
        up[i] += 1e-4, down[i] -= 1e-4;
        got.push_back((loss(up) - loss(down)) / 2e-4);
      }
      double apart = 0;  // the difference of two losses is only as exact as their terms are large
      for (size_t i = 0; i < got.size(); ++i) apart += std::pow(want[i] - got[i], 2);
      CHECK(std::sqrt(apart) <= 1e-6 * norm(got) + 1e-10 * surrogate.size());
    };
    compare(s.v, ours.dv, [&](const std::vector<double>& v) { return surrogate.loss(v, s.lo, s.hi); });
    compare(s.lo, ours.dlo, [&](const std::vector<double>& lo) { return surrogate.loss(s.v, lo, s.hi); });
    compare(s.hi, ours.dhi, [&](const std::vector<double>& hi) { return surrogate.loss(s.v, s.lo, hi); });
  }
}

TEST_CASE("kquant: grids by example") {
  const std::unique_ptr<Backend> backend = make_cpu_backend(Precision::f32);
  const auto quantized = [&](const QuantSpec& spec, auto weight) {
    std::vector<float> w;
    for (i64 i = 0; i < kSuperBlock; ++i) w.push_back(weight(i / spec.group, i % spec.group));
    Linear<float> l(1, kSuperBlock, spec, w);
    l.quantize(*backend);
    return l;
  };
  // Scales of 63 and 126 by turns: d = 2.
  const Linear<float> plain = quantized({4, 32, false, 6}, [](i64 k, i64 i) {
    return static_cast<float>(63 * (i % 16) * (k % 2 + 1));
  });
  CHECK(static_cast<float>(plain.scale[0]) == 2);
  CHECK(plain.factor == std::vector<i8>{32, 63, 32, 63, 32, 63, 32, 63});  // 31.5 to even
  CHECK(plain.zero == std::vector<u8>(8, 0));
  CHECK(plain.codes[32 + 7] == 7);
  CHECK(plain.wq[32 + 7] == 126 * 7);
  const Linear<float> zero = quantized({4, 32, false, 6}, [](i64, i64) { return -0.0f; });
  CHECK(static_cast<float>(zero.scale[0]) == 0x1p-24f);
  CHECK(zero.factor == std::vector<i8>(8, 1));
  for (float x : zero.wq) CHECK(x == 0);
  // The scale of the largest size becomes -32 d; a group far below it still has a factor, and zeros stay zeros.
  const Linear<float> sym = quantized({3, 16, true, 6}, [](i64 k, i64 i) {
    return k == 2 ? (i == 0 ? 8.0f : 0) : k == 5 ? 1e-6f : 0;
  });
  CHECK(static_cast<float>(sym.scale[0]) == 0x1p-4f);
  CHECK(sym.factor[2] == -32);
  CHECK(sym.factor[5] == -1);
  CHECK(sym.wq[2 * 16] == 8);
  CHECK(sym.wq[2 * 16 + 1] == 0);
  for (float wild : {1e30f, -1e30f, std::numeric_limits<float>::quiet_NaN()})
    for (const char* format : kFormats) {
      Linear<float> l = quantized(grid_named(format), [&](i64 k, i64 i) { return k == 3 && i == 3 ? wild : 1.0f; });
      l.dwq.assign(l.w.size(), 1);
      l.step(*backend, 0.1f, 0.1f);
      for (float x : l.wq) CHECK(std::isfinite(x));
      for (float x : l.v) CHECK(std::isfinite(x));
      for (float x : l.lo) CHECK((x >= 0 && x <= 1));
    }
}
