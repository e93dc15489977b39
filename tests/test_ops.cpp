// The CPU kernels: against naive formulas, against dual numbers, one precision against another, one instruction set and number of
// threads against another.
#include <doctest/doctest.h>

#include <cstring>
#include <limits>

#include "expert_cases.h"
#include "ops/cpu/cpu_backend.h"
#include "ops/cpu/select.h"

using namespace signround;
using SIGNROUND_ISA::CpuBackend;

namespace {

std::vector<OpCase> small_cases() {
  const AttentionShape attention{.batch = 2, .tokens = 7, .heads = 4, .kv_heads = 2, .head_dim = 6, .scale = 0.6f};
  AttentionShape all = attention, window = attention, softcap = attention, both = attention, one = attention;
  all.causal = false;
  window.window = 3;
  softcap.softcap = 0.8f;
  both.window = 2, both.softcap = 1.5f, both.kv_heads = 1;
  one.tokens = 1, one.kv_heads = 4;
  AttentionShape alibi = attention;
  alibi.alibi = true, alibi.heads = 6;
  AttentionShape falcon = alibi;
  falcon.falcon_alibi = true;
  return {rms_case(3, 17, 0),
          rms_case(5, 64, 1),
          rms_case(4, 1, 0),
          layer_norm_case(3, 17, true),
          layer_norm_case(5, 64, false),
          linear_case(5, 7, 3, false),
          linear_case(1, 33, 18, true),
          linear_case(19, 1, 5, true),
          linear_case(6, 5, 9, true, true),
          linear_case(4, 11, 3, false, true),
          rope_case(2, {.tokens = 3, .heads = 2, .head_dim = 6, .rotary_dim = 6}),
          rope_case(2, {.tokens = 3, .heads = 2, .head_dim = 10, .rotary_dim = 4}),
          rope_case(1, {.tokens = 5, .heads = 3, .head_dim = 6, .rotary_dim = 6, .interleaved = true}),
          rope_case(3, {.tokens = 2, .heads = 1, .head_dim = 7, .rotary_dim = 4, .interleaved = true}),
          attention_case("causal", attention),
          attention_case("all", all),
          attention_case("window", window),
          attention_case("softcap", softcap),
          attention_case("window and softcap, one KV head", both),
          attention_case("one token", one),
          attention_case("ALiBi", alibi),
          attention_case("ALiBi of Falcon", falcon),
          glu_case(3, 19, Activation::silu),
          glu_case(3, 19, Activation::gelu_tanh),
          act_case(3, 19, Activation::silu),
          act_case(3, 19, Activation::gelu_tanh),
          act_case(3, 19, Activation::gelu),
          act_case(3, 19, Activation::relu),
          slice_case(5, 1, {.first = 0, .width = 4, .period = 11}),
          slice_case(3, 4, {.first = 2, .width = 3, .period = 5}),
          add_case(3, 11),
          softcap_case(3, 11, 0.75f),
          sigmoid_gate_case(3, 11),
          route_case(5, 6, 2, false),
          route_case(4, 5, 3, true),
          dispatch_case(5, 2, 7),
          combine_case(5, 3, 7),
          expert_linear_case({0, 3, 3, 4, 9}, 7, 5),
          embed_case(7, 5, 6, 1),
          embed_case(4, 9, 3, 2.5f),
          cross_entropy_case(7, 37)};
}

// Large enough for several tasks in every kernel; no size is a multiple of a vector.
std::vector<OpCase> large_cases() {
  AttentionShape attention{.batch = 3, .tokens = 83, .heads = 6, .kv_heads = 2, .head_dim = 24, .scale = 0.2f};
  AttentionShape window = attention;
  window.window = 19, window.softcap = 2;
  AttentionShape alibi = attention;
  alibi.alibi = true;
  AttentionShape falcon = alibi;
  falcon.falcon_alibi = true, falcon.batch = 1, falcon.tokens = 300;  // bf16 cannot count so far
  return {rms_case(173, 579, 0),
          linear_case(131, 579, 203, true),
          rope_case(3, {.tokens = 67, .heads = 5, .head_dim = 34, .rotary_dim = 34}),
          attention_case("causal", attention),
          attention_case("window and softcap", window),
          attention_case("ALiBi", alibi),
          attention_case("ALiBi of Falcon", falcon),
          glu_case(131, 403, Activation::silu),
          glu_case(131, 403, Activation::gelu_tanh),
          layer_norm_case(173, 579, true),
          act_case(131, 403, Activation::gelu),
          act_case(131, 403, Activation::relu),
          slice_case(131, 7, {.first = 3, .width = 50, .period = 61}),
          add_case(131, 403),
          softcap_case(131, 403, 0.75f),
          sigmoid_gate_case(131, 403),
          route_case(1237, 61, 6, true),
          route_case(1237, 61, 6, false),
          dispatch_case(131, 3, 403),
          combine_case(131, 3, 403),
          expert_linear_case({0, 0, 97, 98, 211, 300}, 203, 131),
          embed_case(171, 403, 57, 1.5f),
          cross_entropy_case(37, 5003)};
}

// One run of a case with T for every number: outputs, statistics, gradients.
template <class T>
struct Result {
  std::vector<T> y;
  std::vector<std::vector<T>> kept, grads;
};

i64 size_of(Shape s) { return s[0] * s[1]; }

Values random_inputs(const OpCase& c, Random& random) {
  Values x;
  for (Shape s : c.in) x.push_back(random.values(size_of(s)));
  return x;
}

template <class T>
std::vector<Tensor> tensors(std::vector<std::vector<T>>& x, const std::vector<Shape>& shapes) {
  std::vector<Tensor> t;
  for (size_t i = 0; i < x.size(); ++i) t.push_back(tensor(x[i], shapes[i][0], shapes[i][1]));
  return t;
}

// x: the inputs. dy: empty for the forward alone. Gradients start as `prior` (Acc::add must keep it, Acc::set forget it).
template <class T, class X>
Result<T> run(Backend& backend, const OpCase& c, const std::vector<std::vector<X>>& x, const std::vector<double>& dy = {},
              Acc acc = Acc::set, const Values& prior = {}) {
  std::vector<std::vector<T>> in;
  for (const std::vector<X>& v : x) in.push_back(converted<T>(v));
  Result<T> r;
  r.y.assign(static_cast<size_t>(size_of(c.out)), T(std::numeric_limits<float>::quiet_NaN()));
  for (Shape s : c.kept) r.kept.emplace_back(static_cast<size_t>(size_of(s)), T(std::numeric_limits<float>::quiet_NaN()));
  const std::vector<Tensor> tin = tensors(in, c.in), kept = tensors(r.kept, c.kept);
  const Tensor y = tensor(r.y, c.out[0], c.out[1]);
  c.forward(backend, tin.data(), y, kept.data());
  if (dy.empty()) return r;
  std::vector<T> back = converted<T>(dy);
  for (size_t i = 0; i < c.learned; ++i)
    r.grads.push_back(prior.empty() ? std::vector<T>(in[i].size(), T(0)) : converted<T>(prior[i]));
  const std::vector<Tensor> grads = tensors(r.grads, c.in);
  c.backward(backend, grads.data(), acc, tensor(back, c.out[0], c.out[1]), tin.data(), y, kept.data());
  return r;
}

std::vector<double> random_dy(const OpCase& c, Random& random) {
  return c.unit_dy ? std::vector<double>(static_cast<size_t>(size_of(c.out)), 1.0) : random.values(size_of(c.out));
}

// Everything that a case computes, for comparison bit by bit.
std::vector<float> all_numbers(Backend& backend, const OpCase& c, const Values& x, const std::vector<double>& dy) {
  const Result<float> r = run<float>(backend, c, x, dy, c.accs[0]);
  std::vector<float> all = r.y;
  for (const auto* group : {&r.kept, &r.grads})
    for (const std::vector<float>& v : *group) all.insert(all.end(), v.begin(), v.end());
  return all;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

}  // namespace

TEST_CASE("ops: forward equals the formula") {
  Random random;
  CpuBackend<double> exact(Precision::f32, "double");
  for (const std::vector<OpCase>& cases : {small_cases(), large_cases()})
    for (const OpCase& c : cases) {
      CAPTURE(c.name);
      const Values x = random_inputs(c, random);
      CHECK(distance(run<double>(exact, c, x).y, c.naive(x)) < 1e-13);
    }
}

// <J u, dy> from one forward on dual numbers, <u, J^T dy> from the backward in double: equal to rounding.
TEST_CASE("ops: backward is the transpose of the derivative") {
  Random random(2);
  CpuBackend<double> exact(Precision::f32, "double");
  CpuBackend<Dual> dual(Precision::f32, "dual");
  for (const OpCase& c : small_cases())
    for (Acc acc : c.accs) {
      CAPTURE(c.name);
      CAPTURE(static_cast<int>(acc));
      const Values x = random_inputs(c, random), prior = random_inputs(c, random);
      const std::vector<double> dy = random_dy(c, random);
      std::vector<std::vector<Dual>> moved;
      Values direction;
      for (size_t i = 0; i < x.size(); ++i) {
        moved.push_back(converted<Dual>(x[i]));
        direction.push_back(random.values(static_cast<i64>(x[i].size())));
        if (i < c.learned)
          for (size_t k = 0; k < x[i].size(); ++k) moved[i][k].d = direction[i][k];
      }
      double forward = 0, size = 0, backward = 0;
      const std::vector<Dual> y = run<Dual>(dual, c, moved).y;
      for (size_t k = 0; k < y.size(); ++k) {
        forward += y[k].d * dy[k];
        size += std::abs(y[k].d * dy[k]);
      }
      Values grads = run<double>(exact, c, x, dy, acc, prior).grads;
      for (size_t i = 0; i < grads.size(); ++i) {
        if (acc == Acc::add)
          for (size_t k = 0; k < grads[i].size(); ++k) grads[i][k] -= prior[i][k];
        backward += dot(grads[i], direction[i]);
      }
      CHECK(size > 0);
      CHECK(std::abs(forward - backward) <= 1e-12 * size);
    }
}

// The float kernels of every instruction set against double, as distances of whole tensors: 16 roundings at most, while the
// longest sum of a case has 5003 terms.
TEST_CASE("ops: float32 is as exact as float32 can be") {
  constexpr double kEpsilon = 0x1p-24;
  Random random(3);
  CpuBackend<double> exact(Precision::f32, "double");
  for (const OpCase& c : large_cases()) {
    Values x = random_inputs(c, random);
    for (std::vector<double>& v : x) v = converted<double>(converted<float>(v));
    const std::vector<double> dy = converted<double>(converted<float>(random_dy(c, random)));
    const Result<double> want = run<double>(exact, c, x, dy, c.accs[0]);
    for (std::string_view isa : supported_isas()) {
      CAPTURE(c.name);
      CAPTURE(isa);
      const std::unique_ptr<Backend> backend = make_cpu_backend(Precision::f32, isa);
      const Result<float> got = run<float>(*backend, c, x, dy, c.accs[0]);
      CHECK(distance(got.y, want.y) < 16 * kEpsilon);
      for (size_t i = 0; i < got.grads.size(); ++i) CHECK(distance(got.grads[i], want.grads[i]) < 16 * kEpsilon);
    }
  }
}

TEST_CASE("ops: the same bits for any number of threads") {
  Random random(4);
  for (const OpCase& c : large_cases()) {
    const Values x = random_inputs(c, random);
    const std::vector<double> dy = random_dy(c, random);
    for (std::string_view isa : supported_isas())
      for (Precision precision : {Precision::f32, Precision::bf16}) {
        CAPTURE(c.name);
        CAPTURE(isa);
        const std::unique_ptr<Backend> backend = make_cpu_backend(precision, isa);
        std::vector<float> one;
        for (int threads : {1, 2, 5}) {
          const Threads use(threads);
          const std::vector<float> now = all_numbers(*backend, c, x, dy);
          if (threads == 1) one = now;
          CHECK(same_bits(one, now));
        }
      }
  }
}

TEST_CASE("ops: weights are widened exactly, whatever their type") {
  Random random(5);
  const std::unique_ptr<Backend> backend = make_cpu_backend(Precision::f32);
  const i64 rows = 9, in = 37, out = 21;
  std::vector<float> x = converted<float>(random.values(rows * in)), dy = converted<float>(random.values(rows * out));
  std::vector<i32> ids = {3, 0, 20, 3, 3, 1, 7, 8, 9};
  const auto everything = [&](Tensor w, Tensor b, Tensor norm) {
    std::vector<float> y(rows * out), dx(rows * in), e(rows * in), n(rows * in), r(rows), dn(rows * in), all;
    backend->linear(tensor(y, rows, out), tensor(x, rows, in), w, b, {});
    backend->linear_bwd_x(tensor(dx, rows, in), Acc::set, tensor(dy, rows, out), w);
    backend->embed(tensor(e, rows, in), tensor(ids), w, 0.5f);
    backend->rms(tensor(n, rows, in), tensor(r), tensor(x, rows, in), norm, 1e-5f, 1);
    backend->rms_bwd(tensor(dn, rows, in), Acc::set, tensor(e, rows, in), tensor(x, rows, in), norm, tensor(r), 1);
    for (const std::vector<float>* v : {&y, &dx, &e, &n, &r, &dn}) all.insert(all.end(), v->begin(), v->end());
    return all;
  };
  const auto compare = [&]<class W>(W) {
    std::vector<W> w = converted<W>(random.values(out * in)), b = converted<W>(random.values(out));
    std::vector<W> norm = converted<W>(random.values(in));
    std::vector<float> w32 = converted<float>(w), b32 = converted<float>(b), norm32 = converted<float>(norm);
    CHECK(same_bits(everything(tensor(w, out, in), tensor(b), tensor(norm)),
                    everything(tensor(w32, out, in), tensor(b32), tensor(norm32))));
  };
  compare(bf16{});
  compare(f16{});
}

TEST_CASE("ops: slopes of ALiBi") {
  CHECK(alibi_slope(0, 8) == 0.5);
  CHECK(alibi_slope(7, 8) == 0x1p-8);
  CHECK(alibi_slope(3, 6) == 0x1p-8);  // four heads 2^-2 .. 2^-8, then every other one of eight: 2^-1, 2^-3
  CHECK(alibi_slope(4, 6) == 0.5);
  CHECK(alibi_slope(5, 6) == 0.125);
  CHECK(falcon_bias(0.5f, 6) == 3);
  CHECK(falcon_bias(0.5f, 257) == 128);         // the position is rounded to even
  CHECK(falcon_bias(0.84089642f, 259) == 218);  // 0.83984375 * 260 = 218.36, rounded to whole numbers
}

TEST_CASE("ops: positions count within each sequence") {
  const std::unique_ptr<Backend> backend = make_cpu_backend(Precision::f32);
  std::vector<i32> y(6);
  backend->positions(tensor(y), 3, 2);
  CHECK(y == std::vector<i32>{2, 3, 4, 2, 3, 4});
}

TEST_CASE("ops: choices are sorted by expert, then by token, and counted") {
  const std::unique_ptr<Backend> backend = make_cpu_backend(Precision::f32);
  std::vector<float> z = {1, 3, 2, 0, /**/ 5, 5, 5, 5, /**/ 0, 9, 7, 1}, weights(6);
  std::vector<i32> order(18), bounds(5), seen = {1, 1, 1, 1};
  backend->route(tensor(weights, 3, 2), tensor(order, 9, 2), tensor(bounds), tensor(seen), tensor(z, 3, 4), false);
  CHECK(order == std::vector<i32>{1, 2, 0, 1, 1, 2,    // expert of each choice; of equal logits the first
                                  1, 4, 0, 2, 3, 5,    // row of each choice
                                  2, 0, 3, 4, 1, 5});  // choice of each row
  CHECK(bounds == std::vector<i32>{0, 1, 4, 6, 6});
  CHECK(seen == std::vector<i32>{2, 4, 3, 1});
  CHECK(weights[2] == doctest::Approx(0.25));
}

TEST_CASE("ops: gradients that are not wanted are skipped") {
  const std::unique_ptr<Backend> backend = make_cpu_backend(Precision::f32);
  std::vector<float> a = {1, 2, 3, 4}, du(4);
  const Tensor x = tensor(a, 2, 2);
  backend->glu_bwd({}, tensor(du, 2, 2), Acc::set, Acc::set, x, x, x, Activation::silu);
  CHECK(du[0] == doctest::Approx(sigmoid(1)));
  backend->add_bwd({}, Acc::add, x);
  backend->linear_bwd_x({}, Acc::set, x, x);
  backend->linear_bwd_w({}, Acc::set, x, x);
  backend->rms_bwd({}, Acc::set, x, x, x, x, 0);
  backend->layer_norm_bwd({}, Acc::set, x, x, x, x);
  backend->act_bwd({}, Acc::set, x, x, Activation::gelu);
  backend->slice_bwd({}, Acc::set, x, {.first = 0, .width = 1, .period = 1});
  backend->softcap_bwd({}, Acc::set, x, x, 1);
  backend->route_bwd({}, Acc::set, x, x, x, x, false);
  backend->dispatch_bwd({}, Acc::set, x, x);
  backend->expert_linear_bwd_x({}, Acc::set, x, x, x);
  backend->expert_linear_bwd_w({}, Acc::set, x, x, x);
  std::vector<float> dg(2), g(2);
  backend->sigmoid_gate_bwd({}, tensor(dg, 2, 1), Acc::set, Acc::set, x, x, tensor(g, 2, 1));
  CHECK(dg[0] == doctest::Approx(0.25 * (1 + 4)));
  backend->rope_bwd({}, Acc::set, x, x, {.tokens = 2, .heads = 1, .head_dim = 2, .rotary_dim = 2});
}
