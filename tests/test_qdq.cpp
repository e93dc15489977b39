// Quantize-dequantize: its gradients against dual numbers, its corner cases by example, its integers against the peer's.
#include <doctest/doctest.h>

#include <algorithm>
#include <limits>
#include <map>
#include <set>
#include <span>

#include "io/safetensors.h"
#include "ops/cpu/select.h"
#include "qdq_linear.h"

using namespace signround;
using namespace signround::SIGNROUND_ISA;

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity(), kNan = std::numeric_limits<float>::quiet_NaN();
constexpr QuantSpec kSym4{.bits = 4, .group = -1, .symmetric = true}, kAsym4{.bits = 4, .group = -1, .symmetric = false};

// One group with the weights w, quantized.
Linear<float> group_of(std::vector<float> w, QuantSpec spec, float v = 0, float lo = 1, float hi = 1) {
  const i64 n = static_cast<i64>(w.size());
  Linear<float> l(1, n, spec, std::move(w));
  l.v.assign(l.w.size(), v);
  l.lo = {lo}, l.hi = {hi};
  l.quantize(*make_cpu_backend(Precision::f32));
  return l;
}

float as_f16(double x) { return static_cast<float>(f16(static_cast<float>(x))); }

std::vector<int> ints(const std::vector<u8>& codes) { return {codes.begin(), codes.end()}; }

// To the bit.
template <class V>
bool same(const V& a, const V& b) {
  return std::ranges::equal(std::as_bytes(std::span(a)), std::as_bytes(std::span(b)));
}

}  // namespace

// With c = round(t) - t frozen, round(t) is t + c: then wq is differentiable in v, lo, hi, except where a bound is just reached
// or the two sides of a symmetric range tie, and the dot test applies to the straight-through gradients.
TEST_CASE("qdq: gradients are the transpose of the surrogate's derivative") {
  Random random;
  std::set<std::string> met;  // the situations that the random groups have brought up
  for (int trial = 0; trial < 3000; ++trial) {
    const QuantSpec spec{.bits = 2 + trial % 7, .group = -1, .symmetric = trial % 2 == 0};
    const i64 n = 1 + trial % 37;
    const double size = std::pow(10.0, random.uniform(-7, 1)), shift = random.uniform(-1.5, 1.5);
    const double reach = trial % 5 == 0 ? 3 : 0.5;
    std::vector<double> w = random.values(n), v = random.values(n, -reach, reach), g = random.values(n);
    for (double& x : w) x = (x + shift) * size;
    const auto [low, high] = std::minmax_element(w.begin(), w.end());
    const Range<double> range{std::min(0.0, *low), std::max(0.0, *high), random.uniform(0, 1), random.uniform(0, 1)};
    const std::vector<double> dv_along = random.values(n);
    const Range<Dual> moved{range.wmin, range.wmax, {range.lo, random.uniform()}, {range.hi, random.uniform()}};

    const Grid<double> grid = grid_of(range, spec);
    std::vector<Dual> dual_w = converted<Dual>(w), dual_v = converted<Dual>(v), wq(w.size());
    for (i64 i = 0; i < n; ++i) dual_v[i].d = dv_along[i];
    group_qdq(wq.data(), dual_w.data(), dual_v.data(), n, grid_of(moved, spec));
    double backward = 0, forward = 0, magnitude = 1e-300;
    const auto use = [&](i64 first, i64 count, const double* dv) {
      for (i64 i = 0; i < count; ++i) backward += dv[i] * dv_along[first + i];
    };
    const std::array<double, 2> sums = group_bwd(g.data(), w.data(), v.data(), n, grid, use);
    const std::array<double, 2> d = range_bwd(range, grid, sums[0], sums[1], spec);
    backward += d[0] * moved.lo.d + d[1] * moved.hi.d;
    for (i64 i = 0; i < n; ++i) {
      forward += wq[i].d * g[i];
      const Level<double> level = level_of(w[i], v[i], grid);
      magnitude += std::abs(wq[i].d * g[i]) + std::abs(g[i]) * (std::abs(level.ratio) + 16) * (range.wmax - range.wmin);
      met.insert(cat(spec.symmetric ? "sym " : "asym ", level.q == level.r ? "inside" : "outside"));
    }
    met.insert(cat(spec.symmetric ? "sym " : "asym ", grid.scale_free ? "free" : "raised", grid.scale < 0 ? " negative" : ""));
    CAPTURE(trial);
    CHECK(std::abs(forward - backward) <= 1e-12 * magnitude);
  }
  for (const char* kind : {"sym inside", "sym outside", "asym inside", "asym outside", "sym free", "sym free negative",
                           "sym raised", "sym raised negative", "asym free", "asym raised"})
    CHECK_MESSAGE(met.count(kind) == 1, kind);
}

TEST_CASE("qdq: a bound that is just reached passes its gradient") {
  // Levels -8..7 in steps of 1: w = -8 and w = 7 lie on the outermost codes, v pushes others past them.
  Linear<float> l = group_of({-8, 7, 7, -8, 3}, kSym4);
  l.v = {0, 0, 1, -1, 0};
  l.dwq = {1, 1, 1, 1, 1};
  std::vector<float> dv(5);
  l.gradients(0, &dv);
  CHECK(dv == std::vector<float>{1, 1, 0, 0, 1});
  Linear<float> a = group_of({0, 15, 15, 0, 3}, kAsym4);
  a.v = {0, 0, 1, -1, 0};
  a.dwq = {1, 1, 1, 1, 1};
  a.gradients(0, &dv);
  CHECK(dv == std::vector<float>{1, 1, 0, 0, 1});
}

TEST_CASE("qdq: symmetric grids by example") {
  const Linear<float> negative = group_of({-8, -1, 0, 1, 7}, kSym4);  // the longer side gets the code 0
  CHECK(static_cast<float>(negative.scale[0]) == 1);
  CHECK(ints(negative.codes) == std::vector<int>{0, 7, 8, 9, 15});
  CHECK(negative.zero[0] == 8);
  CHECK(negative.wq == negative.w);
  const Linear<float> positive = group_of({8, 1, 0, -1, -7}, kSym4);  // so that the scale is negative here
  CHECK(static_cast<float>(positive.scale[0]) == -1);
  CHECK(ints(positive.codes) == std::vector<int>{0, 7, 8, 9, 15});
  CHECK(positive.wq == positive.w);
  const Linear<float> tie = group_of({8, -8}, kSym4);  // a tie goes the way of the positive side
  CHECK(static_cast<float>(tie.scale[0]) == -1);
  CHECK(tie.wq == std::vector<float>{8, -7});
  const Linear<float> single = group_of({0.3f}, kSym4);
  CHECK(ints(single.codes) == std::vector<int>{0});
  CHECK(single.wq[0] == as_f16(0.3f / -8) * -8);
  const Linear<float> halves = group_of({0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -8}, kSym4);  // half to even
  CHECK(halves.wq == std::vector<float>{0, 2, 2, 0, -2, -8});
  const Linear<float> two_bits = group_of({-2, -1, 0, 1, 2}, {.bits = 2, .group = -1, .symmetric = true}, 0, 1, 0.5f);
  CHECK(ints(two_bits.codes) == std::vector<int>{0, 1, 2, 3, 3});
}

TEST_CASE("qdq: asymmetric grids by example") {
  const Linear<float> l = group_of({-3, -1, 0, 1, 12}, kAsym4);
  CHECK(static_cast<float>(l.scale[0]) == 1);
  CHECK(l.zero[0] == 3);
  CHECK(ints(l.codes) == std::vector<int>{0, 2, 3, 4, 15});
  CHECK(l.wq == l.w);
  const Linear<float> positive = group_of({5, 10, 15}, kAsym4);  // the range includes 0
  CHECK(positive.zero[0] == 0);
  CHECK(positive.wq == positive.w);
  const Linear<float> negative = group_of({-5, -10, -15}, kAsym4);
  CHECK(negative.zero[0] == 15);
  CHECK(negative.wq == negative.w);
  const Linear<float> shrunk = group_of({-3, 12}, kAsym4, 0, 1, 0);  // hi = 0: nothing positive is left
  CHECK(static_cast<float>(shrunk.scale[0]) == as_f16(3.0 / 15));
  CHECK(shrunk.zero[0] == 15);
  CHECK(shrunk.wq[1] == 0);
}

TEST_CASE("qdq: groups that are all zero, tiny, huge or not even numbers") {
  const float least = as_f16(1e-5);
  CHECK(least == kScaleMin);
  for (const QuantSpec& spec : {kSym4, kAsym4}) {
    for (float zero : {0.0f, -0.0f}) {
      const Linear<float> l = group_of({zero, zero}, spec);
      CHECK(static_cast<float>(l.scale[0]) == least);
      CHECK(l.wq == std::vector<float>{0, 0});
    }
    for (float sign : {1.0f, -1.0f}) {
      const Linear<float> tiny = group_of({sign * 1e-20f, 0}, spec);
      CHECK(std::abs(static_cast<float>(tiny.scale[0])) == least);
      CHECK(tiny.wq == std::vector<float>{0, 0});
      const Linear<float> huge = group_of({sign * 1e30f, -sign}, spec);  // the scale stays the largest f16; the weights saturate
      CHECK(std::abs(static_cast<float>(huge.scale[0])) == kScaleMax);
      CHECK(std::abs(huge.wq[0]) == (spec.symmetric ? 8.0f : 15.0f) * kScaleMax);
      CHECK((huge.wq[0] > 0) == (sign > 0));
      CHECK(huge.wq[1] == 0);
      const Linear<float> infinite = group_of({sign * kInfinity, 1}, spec, 0, 0, 0);
      for (float x : infinite.wq) CHECK(std::isfinite(x));
    }
    Linear<float> nan = group_of({kNan, 1, -2}, spec);
    for (float x : nan.wq) CHECK(std::isfinite(x));
    CHECK(nan.wmin[0] == -2);
    CHECK(nan.wmax[0] == 1);
    nan.dwq = {1, kNan, 1};
    nan.step(*make_cpu_backend(Precision::f32), 1, 0.25f);
    for (float x : nan.v) CHECK(std::isfinite(x));
    CHECK(nan.lo[0] == 1);  // the gradient of the range is NaN
    CHECK(nan.hi[0] == 1);
  }
  // 8 bits just above the least scale, f16 being coarse there: -mn/s rounds to 256, which no byte holds.
  const float unit = 0x1p-24f;
  const Linear<float> coarse = group_of({-255 * 170.49f * unit}, {.bits = 8, .group = -1, .symmetric = false});
  CHECK(static_cast<float>(coarse.scale[0]) == 170 * unit);
  CHECK(coarse.zero[0] == 255);
  CHECK(coarse.codes[0] == 0);
}

TEST_CASE("qdq: at a tie each side gets half the gradient of the negative branch") {
  Linear<float> l = group_of({8, -8, 4}, kSym4);
  l.dwq = {1, 2, 4};
  // s = -1: ratios -8, 8, -4; levels -8, 7 (outside), -4. S = sum g (q - m w/s) = 2 * 7
  const std::array<float, 2> d = l.gradients(0);
  CHECK(d[0] == 0.5f * 14 * -8 / 8);
  CHECK(d[1] == -0.5f * 14 * 8 / 8);
}

TEST_CASE("qdq: a step goes against the sign and keeps the factors in [0, 1]") {
  const std::unique_ptr<Backend> backend = make_cpu_backend(Precision::f32);
  Linear<float> l = group_of({-8, 3, 3, 3.4f, 7}, kSym4);
  l.dwq = {0, 1e-30f, -5, 2, 0};
  l.step(*backend, 0.25f, 0.5f);
  CHECK(l.v == std::vector<float>{0, -0.25f, 0.25f, -0.25f, 0});  // sign(0) = 0
  // S = 2 (3 - 3.4) < 0 and -wmin > 0: dlo < 0, and lo is at its bound; hi has no gradient on this branch
  CHECK(l.lo[0] == 1);
  CHECK(l.hi[0] == 1);
  l.v = {0, 0, 0, 0, 0};
  l.dwq = {0, 0, 0, -2, 0};
  l.step(*backend, 0.25f, 0.75f);
  CHECK(l.lo[0] == 0.25f);
  CHECK(l.hi[0] == 1);
  Linear<float> floor = group_of({8, 3.4f, -7}, kSym4, 0, 1, 0.9f);  // dhi = -S wmax / M > 0
  floor.dwq = {0, 0, 0};
  floor.step(*backend, 1, 1);
  CHECK(floor.hi[0] == 0.9f);
  floor.dwq = {0, 1, 0};
  for (int i = 0; i < 2; ++i) floor.step(*backend, 0, 0.9f * floor.hi[0] + 0.2f);
  CHECK(floor.hi[0] >= 0);
  CHECK(floor.hi[0] <= 1);
}

TEST_CASE("qdq: factors that a search has started may grow to 2") {
  const std::unique_ptr<Backend> backend = make_cpu_backend(Precision::f32);
  Linear<float> l = group_of({-8, 3, 3.4f, 7}, kSym4);
  l.dwq = {0, 0, 2, 0};  // S = 2 (3 - 3.4) < 0 and -wmin > 0: dlo < 0
  l.step(*backend, 0, 0.25f, 2);
  CHECK(l.lo[0] == 1.25f);
  l.dwq = {0, 0, -2, 0};
  l.lo[0] = 1.9f;  // s = 1.9: S = -2 (2 - 3.4 / 1.9) < 0
  l.step(*backend, 0, 0.25f, 2);
  CHECK(l.lo[0] == 2);
}

TEST_CASE("qdq: the same bits for every instruction set and number of threads") {
  Random random;
  const auto compare = [&]<class W>(W, i64 cols, std::initializer_list<QuantSpec> specs) {
    for (const QuantSpec& spec : specs) {
      const i64 rows = 331;
      Linear<W> start(rows, cols, spec, converted<W>(random.values(rows * cols, -0.05, 0.07)));
      start.v = converted<float>(random.values(rows * cols, -0.6, 0.6));
      start.lo = converted<float>(random.values(start.groups, 0.5, 1));
      start.hi = converted<float>(random.values(start.groups, 0.5, 1));
      start.dwq = converted<float>(random.values(rows * cols));
      const auto run = [&](std::string_view isa, int threads) {
        const Threads use(threads);
        const std::unique_ptr<Backend> backend = make_cpu_backend(Precision::f32, isa);
        Linear<W> l = start;
        for (int i = 0; i < 2; ++i) {
          l.quantize(*backend);
          l.step(*backend, 0.125f, 0.0625f);
        }
        l.quantize(*backend);
        return l;
      };
      const Linear<W> want = run("baseline", 1);
      for (std::string_view isa : supported_isas())
        for (int threads : {1, 2, 3}) {
          CAPTURE(isa);
          CAPTURE(threads);
          const Linear<W> got = run(isa, threads);
          CHECK(same(got.wq, want.wq));
          CHECK(same(got.codes, want.codes));
          CHECK(same(got.scale, want.scale));
          CHECK(same(got.zero, want.zero));
          CHECK(same(got.factor, want.factor));
          CHECK(same(got.offset, want.offset));
          CHECK(same(got.v, want.v));
          CHECK(same(got.lo, want.lo));
          CHECK(same(got.hi, want.hi));
        }
    }
  };
  compare(bf16{}, 200, {{3, 64, true}, {3, 64, false}});
  compare(f16{}, 97, {{3, 32, true}, {3, 32, false}});
  compare(0.0f, 291, {{3, -1, true}, {3, -1, false}});
  compare(bf16{}, 600, {{3, -1, true}, {3, -1, false}});
  compare(bf16{}, 512, {{2, 16, false, 4}, {4, 32, false, 6}});
  compare(0.0f, 256, {{3, 16, true, 6}, {6, 16, true, 8}});
}

namespace {

// The stored results of auto-round 0.16.1: tests/peer/make_vectors.py says what they are.
struct Peer {
  SafetensorsFile file{"tests/data/peer/qdq.safetensors"};
  std::map<std::string, const TensorInfo*> tensors;
  std::vector<std::string> cases;
  Peer() {
    for (const TensorInfo& t : file.tensors()) {
      tensors[t.name] = &t;
      if (t.name.ends_with(".params")) cases.push_back(t.name.substr(0, t.name.size() - 7));
    }
  }
  template <class T>
  std::vector<T> read(const std::string& name) const {
    const TensorInfo& t = *tensors.at(name);
    std::vector<T> x(t.bytes / sizeof(T));
    file.read(t, std::as_writable_bytes(std::span(x)));
    return x;
  }
};

int sign_of(float x) { return (x > 0) - (x < 0); }

template <class W>
void compare_with_peer(const Peer& peer, const std::string& name, const std::vector<i32>& params, Backend& backend) {
  const QuantSpec spec{.bits = params[1], .group = params[2], .symmetric = params[0] == 1};
  Linear<W> l(params[3], params[4], spec, peer.read<W>(name + ".w"));
  l.v = peer.read<float>(name + ".v");
  l.lo = peer.read<float>(name + ".min_scale");
  l.hi = peer.read<float>(name + ".max_scale");
  l.quantize(backend);
  const std::vector<std::int16_t> q = peer.read<std::int16_t>(name + ".q"), zp = peer.read<std::int16_t>(name + ".zp");
  const std::vector<W> w_hat = peer.read<W>(name + ".w_hat");
  const int offset = l.spec.symmetric ? 1 << (l.spec.bits - 1) : 0;  // the peer's symmetric integers are centred on 0
  bool codes = true, zeros = true, values = true;
  for (size_t i = 0; i < q.size(); ++i) codes = codes && l.codes[i] == q[i] + offset;
  for (size_t i = 0; i < zp.size(); ++i) zeros = zeros && l.zero[i] == zp[i];
  for (size_t i = 0; i < w_hat.size(); ++i) values = values && l.wq[i] == w_hat[i];
  CHECK(codes);
  CHECK(zeros);
  CHECK(values);
  CHECK(same(l.scale, peer.read<f16>(name + ".scale")));

  l.dwq = peer.read<float>(name + ".g");
  const std::vector<float> dv = peer.read<float>(name + ".dv");
  const std::vector<float> dmin = peer.read<float>(name + ".dmin"), dmax = peer.read<float>(name + ".dmax");
  std::vector<float> ours(dv.size());
  for (i64 group = 0; group < l.groups; ++group) {
    const std::array<float, 2> d = l.gradients(group, &ours);
    CHECK(sign_of(d[0]) == sign_of(dmin[group]));
    CHECK(sign_of(d[1]) == sign_of(dmax[group]));
  }
  bool signs = true;
  for (size_t i = 0; i < dv.size(); ++i) signs = signs && sign_of(ours[i]) == sign_of(dv[i]);
  CHECK(signs);
}

}  // namespace

TEST_CASE("qdq: auto-round's integers, scales and weights bit for bit, and the signs of its gradients") {
  const Peer peer;
  CHECK(peer.cases.size() == 192);
  const std::unique_ptr<Backend> backend = make_cpu_backend(Precision::f32);
  for (const std::string& name : peer.cases) {
    if (name.find("overflow") != name.npos) continue;  // its scale is infinite there, its weights NaN; ours are finite, see above
    CAPTURE(name);
    const std::vector<i32> params = peer.read<i32>(name + ".params");
    if (params[5]) compare_with_peer<bf16>(peer, name, params, *backend);
    else compare_with_peer<float>(peer, name, params, *backend);
  }
}
