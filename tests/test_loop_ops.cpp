// The ops that are not a network's: memory, the tuning loss, the loop's own steps, the choice of a build.
#include <doctest/doctest.h>

#include <cstdlib>

#include "ops/cpu/cpu_backend.h"
#include "ops/cpu/select.h"
#include "testing.h"

using namespace signround;
using SIGNROUND_ISA::CpuBackend;

namespace {

// A TuningState over vectors.
template <class T>
struct State {
  std::vector<i32> order = {2, 0, 1, 1}, counters = {0, 0, 0, 0};
  std::vector<float> lr = {0.5f, 0.25f, 0.125f}, minmax_lr = lr;
  std::vector<T> loss = {T(0), T(0), T(0)}, best = {T(1e30f)};
  TuningState view() { return {tensor(order), tensor(lr), tensor(minmax_lr), tensor(loss), tensor(best), tensor(counters)}; }
};

// What f throws as an Error of that kind.
template <class F>
std::string error_of(ErrorKind kind, F f) {
  try {
    f();
  } catch (const Error& e) {
    CHECK(e.kind == kind);
    return e.message;
  }
  return "nothing thrown";
}

bool contains(const std::string& text, std::string_view part) { return text.find(part) != text.npos; }

}  // namespace

TEST_CASE("mse: the mean over the tokens that count, and a gradient of the sum") {
  Random random;
  CpuBackend<Dual> dual(Precision::f32, "dual");
  for (bool skip_last : {false, true})
    for (i64 batch : {1, 3, 700}) {
      const i64 tokens = 3, cols = 5, rows = batch * tokens;
      std::vector<Dual> y = converted<Dual>(random.values(rows * cols)), target = converted<Dual>(random.values(rows * cols));
      std::vector<Dual> dy(y.size());
      double sum = 0, counted = 0;
      for (i64 i = 0; i < rows * cols; ++i) {
        y[i].d = random.uniform();
        if (skip_last && i / cols % tokens == tokens - 1) continue;
        sum += (y[i].v - target[i].v) * (y[i].v - target[i].v);
        counted += 1;
      }
      State<Dual> s;
      s.counters = {1, 0, 0, 0};
      s.loss[1] = 7;
      dual.mse(tensor(dy, rows, cols), tensor(y, rows, cols), {tensor(target, rows, cols), true}, tokens, skip_last, s.view());
      CHECK(s.loss[1].v == doctest::Approx(7 + sum / counted).epsilon(1e-14));
      double along = 0;
      for (size_t i = 0; i < y.size(); ++i) along += dy[i].v * y[i].d;
      CHECK(s.loss[1].d * counted == doctest::Approx(along).epsilon(1e-12));
      CHECK(s.counters == std::vector<i32>{2, 1, 1, 1});
      std::vector<Dual> in_place = y;
      dual.mse(tensor(in_place, rows, cols), tensor(in_place, rows, cols), {tensor(target, rows, cols), true}, tokens, skip_last,
               s.view());
      for (size_t i = 0; i < dy.size(); ++i) REQUIRE(in_place[i].v == dy[i].v);
    }
}

TEST_CASE("mse: targets are picked by the order of the samples, or in turn") {
  const std::unique_ptr<Backend> backend = make_cpu_backend(Precision::f32);
  std::vector<float> states = {0, 1, 10, 11, 20, 21}, y = {0, 0}, dy(2);
  State<float> s;
  s.order = {2, 0, 1};
  const auto next = [&](bool in_turn) {  // a micro-batch of one sample of two tokens
    backend->mse(tensor(dy, 2, 1), tensor(y, 2, 1), {tensor(states, 6, 1), in_turn}, 2, false, s.view());
    return dy;
  };
  CHECK(next(false) == std::vector<float>{-40, -42});
  CHECK(next(false) == std::vector<float>{0, -2});
  CHECK(next(false) == std::vector<float>{-20, -22});
  s = State<float>();
  s.loss.resize(4), s.lr.resize(4), s.minmax_lr.resize(4);
  for (float first : {0.0f, 10.0f, 20.0f, 0.0f}) CHECK(next(true) == std::vector<float>{-2 * first, -2 * first - 2});
  s = State<float>();
  s.order = {3};
  CHECK(contains(error_of(ErrorKind::bug, [&] { next(false); }), "sample 3 is not in the cache"));
}

TEST_CASE("mse: the same loss for any number of threads") {
  Random random;
  const std::unique_ptr<Backend> backend = make_cpu_backend(Precision::f32);
  const i64 rows = 1031, cols = 77;
  std::vector<float> y = converted<float>(random.values(rows * cols)), target = converted<float>(random.values(rows * cols));
  std::vector<float> dy(y.size());
  std::vector<float> losses;
  for (int threads : {1, 2, 3}) {
    const Threads use(threads);
    State<float> s;
    backend->mse(tensor(dy, rows, cols), tensor(y, rows, cols), {tensor(target, rows, cols), true}, rows, true, s.view());
    losses.push_back(s.loss[0]);
  }
  CHECK(losses[0] == losses[1]);
  CHECK(losses[0] == losses[2]);
}

TEST_CASE("tuning loop: samples in their order, steps counted, the first of equal losses kept") {
  const std::unique_ptr<Backend> backend = make_cpu_backend(Precision::f32);
  State<float> s;
  TuningState state = s.view();
  const auto measure = [&](float error) {  // a micro-batch of one number
    std::vector<float> y = {error}, zero = {0}, dy = {0};
    backend->mse(tensor(dy, 1, 1), tensor(y, 1, 1), {tensor(zero, 1, 1), true}, 1, false, state);
  };
  std::vector<float> cache = {0, 1, 10, 11, 20, 21}, batch(4), kept = {0}, now = {5};
  std::vector<bf16> narrow = converted<bf16>(cache);
  for (Tensor from : {tensor(cache, 6, 1), tensor(narrow, 6, 1)}) {  // three samples of two tokens
    s.counters[0] = 0;
    backend->gather(tensor(batch, 4, 1), from, 2, state);
    CHECK(batch == std::vector<float>{20, 21, 0, 1});
    measure(0);
    backend->gather(tensor(batch, 4, 1), from, 2, state);
    CHECK(batch == std::vector<float>{10, 11, 10, 11});
  }
  measure(0);
  const auto too_far = [&] { backend->gather(tensor(batch, 4, 1), tensor(cache, 6, 1), 2, state); };
  CHECK(contains(error_of(ErrorKind::bug, too_far), "past the end"));

  const float errors[] = {2, 1, 1};  // squared: 4, 1, 1
  const i32 best_steps[] = {0, 1, 1}, is_best[] = {1, 1, 0};
  for (i32 accumulate : {1, 2}) {
    s = State<float>(), state = s.view();
    state.accumulate = accumulate;
    for (i32 step = 0; step < 3; ++step) {
      now[0] = static_cast<float>(step);
      for (i32 micro = 1; micro < accumulate; ++micro) {
        measure(0.5f);
        CHECK(s.counters == std::vector<i32>{accumulate * step + micro, step, step > 0 ? best_steps[step - 1] : 0, 0});
      }
      measure(errors[step]);
      backend->keep_if_best(tensor(kept), tensor(now), state);
      CHECK(s.counters == std::vector<i32>{accumulate * (step + 1), step, best_steps[step], is_best[step]});
      CHECK(kept[0] == static_cast<float>(best_steps[step]));
    }
    CHECK(s.best[0] == (accumulate == 1 ? 1 : 1.25f));
    CHECK(contains(error_of(ErrorKind::bug, [&] { measure(0); }), "step 3 of 3"));
  }
  s = State<float>(), state = s.view();
  measure(std::numeric_limits<float>::quiet_NaN());
  CHECK(s.counters[3] == 0);
  CHECK(s.counters[0] == 1);
}

TEST_CASE("repeat runs the body and reports") {
  const std::unique_ptr<Backend> backend = make_cpu_backend(Precision::f32);
  i64 runs = 0, reported = 0;
  backend->repeat(3, [&] { ++runs; }, [&](i64 n) { reported = n; });
  CHECK(runs == 3);
  CHECK(reported == 3);
  CHECK_THROWS_AS(backend->repeat(3, [&] { ++runs; }, [](i64) { fail(ErrorKind::interrupted, "stop"); }), Error);
  CHECK(runs == 4);
}

TEST_CASE("memory: copies convert, fills fill, allocations are counted and refused in time") {
  const std::unique_ptr<Backend> backend = make_cpu_backend(Precision::f32);
  Random random;
  std::vector<float> x = converted<float>(random.values(20011)), back(x.size());
  std::vector<bf16> b(x.size());
  std::vector<f16> h(x.size());
  backend->copy(tensor(b), tensor(x));
  backend->copy(tensor(h), tensor(b));
  backend->copy(tensor(back), tensor(h));
  bool right = true;
  for (size_t i = 0; i < x.size(); ++i) right = right && back[i] == static_cast<float>(f16(static_cast<float>(bf16(x[i]))));
  CHECK(right);
  backend->copy(tensor(back), tensor(x));
  CHECK(back == x);
  std::vector<i32> n(5);
  backend->fill(tensor(n), 3);
  CHECK(n == std::vector<i32>(5, 3));
  backend->fill(tensor(b), 1.5f);
  CHECK(static_cast<float>(b.back()) == 1.5f);

  {
    const Buffer one(*backend, 3 << 20, "one"), two(*backend, 100, "two");
    CHECK(reinterpret_cast<std::uintptr_t>(one.data()) % kAlignment == 0);
    CHECK(reinterpret_cast<std::uintptr_t>(two.data()) % kAlignment == 0);
  }
  const Buffer three(*backend, 100, "three");
  CHECK(backend->peak_bytes() == (3 << 20) + 100);
  CHECK(backend->free_bytes() > 0);
  CHECK(backend->free_bytes() <= backend->total_bytes());
  const i64 much = backend->total_bytes() * 4;
  const std::string message = error_of(ErrorKind::out_of_memory, [&] { Buffer(*backend, much, "a far too large thing"); });
  CHECK(contains(message, cat("a far too large thing needs ", much, " bytes")));
}

TEST_CASE("ids from outside are checked") {
  const std::unique_ptr<Backend> backend = make_cpu_backend(Precision::f32);
  std::vector<float> table(6), y(4), nll(2);
  for (i32 wrong : {-1, 3}) {
    std::vector<i32> ids = {0, wrong};
    CHECK(contains(error_of(ErrorKind::bad_input, [&] { backend->embed(tensor(y, 2, 2), tensor(ids), tensor(table, 3, 2), 1); }),
                   cat("token id ", wrong, " at position 1")));
  }
  std::vector<i32> targets = {0, 2};
  CHECK(contains(error_of(ErrorKind::bad_input, [&] { backend->cross_entropy(tensor(nll), tensor(y, 2, 2), tensor(targets)); }),
                 "token id 2 at position 1"));
}

TEST_CASE("the instruction set can be chosen, among those of the processor") {
  for (std::string_view isa : supported_isas()) CHECK(make_cpu_backend(Precision::f32, isa)->name() == cat("cpu ", isa));
  CHECK(contains(error_of(ErrorKind::usage, [] { make_cpu_backend(Precision::f32, "mmx"); }), "\"mmx\""));
  CHECK(contains(error_of(ErrorKind::usage, [] { make_cpu_backend(Precision::fp8); }), "use --precision bf16"));
  setenv("SIGNROUND_ISA", "baseline", 1);
  CHECK(make_cpu_backend(Precision::f32)->name() == "cpu baseline");
  setenv("SIGNROUND_ISA", "nonsense", 1);
  CHECK_THROWS_AS(make_cpu_backend(Precision::f32), Error);
  unsetenv("SIGNROUND_ISA");
  CHECK(make_cpu_backend(Precision::f32)->name() == cat("cpu ", supported_isas().back()));
}
