// Steps of many weights at once: the bits of one step a weight.
#include <doctest/doctest.h>

#include "cuda_lab.h"

using namespace signround;

namespace {

struct Weight {
  i64 rows, cols;
  QuantSpec spec;
  DType type = DType::bf16;
  i64 shift = 0;  // elements that its tensors begin behind an aligned place
};

// Of all kinds, in an order in which neighbours may share a launch and may not; and more of one kind than a launch takes.
std::vector<Weight> weights() {
  std::vector<Weight> all = {{576, 576, {4, 64, true}},
                             {192, 576, {4, 64, true}},
                             {21, 1536, {2, 128, false}},
                             {9, 200, {3, 128, false}},
                             {5, 1024, {8, -1, true}},
                             {33, 97, {4, 32, true}},
                             {7, 256, {4, 64, true}, DType::bf16, 1},
                             {3, 512, {4, 32, false, 6}},
                             {2, 256, {3, 16, true, 6}},
                             {1, 1, {8, -1, false}},
                             {33, 256, {4, 32, true}, DType::f16},
                             {9, 291, {4, -1, false}, DType::f32},
                             {9, 128, {5, 32, false}, DType::f32}};
  for (int i = 1; i <= 37; ++i) all.push_back({i, 64 * (1 + i % 5), {2 + i % 7, 16 << i % 4, i % 2 == 0}});
  return all;
}

// What two steps make of them, as bytes.
std::vector<std::byte> stepped(Backend& b, DType gradient, bool at_once) {
  Lab lab(b, DType::f32);
  std::vector<QdqStep> steps;
  for (const Weight& w : weights()) {
    const auto shifted = [&](Tensor longer) {
      return view(static_cast<char*>(longer.data) + w.shift * bytes_of(longer.dtype), longer.dtype, w.rows, w.cols);
    };
    const i64 size = w.rows * w.cols + w.shift, groups = w.spec.groups(w.cols);
    QdqTensors q;
    q.w = shifted(lab.weight(1, size, w.type, w.type, -0.06, 0.07));
    q.v = shifted(lab.learned(1, size, -0.6, 0.6));
    q.lo = lab.learned(w.rows, groups, 0.5, 1), q.hi = lab.learned(w.rows, groups, 0.5, 1);
    q.wmin = lab.raw(w.rows, groups, DType::f32), q.wmax = lab.raw(w.rows, groups, DType::f32);
    b.group_range(q.wmin, q.wmax, q.w, w.spec);
    const Tensor dwq = shifted(lab.weight(1, size, gradient, DType::bf16));
    steps.push_back({shifted(lab.raw(1, size, w.type)), q, dwq, w.spec, w.rows % 3 == 0 ? 2.0f : 1.0f});
  }
  TuningState state{};
  state.lr = lab.values({0, 0.0137f}), state.minmax_lr = lab.values({0, 0.31f});
  state.counters = lab.integers({0, 1, 0, 0});
  for (int round = 0; round < 2; ++round) {
    if (at_once) b.qdq_step(steps, state);
    for (size_t i = 0; !at_once && i < steps.size(); ++i) b.qdq_step({&steps[i], 1}, state);
  }
  std::vector<std::byte> all;
  for (const QdqStep& s : steps)
    for (Tensor t : {s.wq, s.q.v, s.q.lo, s.q.hi}) {
      all.resize(all.size() + static_cast<size_t>(t.bytes()));
      b.download(all.data() + all.size() - t.bytes(), t);
    }
  CHECK(lab.canaries_live());
  return all;
}

}  // namespace

TEST_CASE("qdq: weights that step at once step as they do one by one") {
  const std::unique_ptr<Backend> cpu = make_cpu_backend(Precision::f32);
  const std::vector<std::byte> want = stepped(*cpu, DType::f32, false);
  CHECK(stepped(*cpu, DType::f32, true) == want);
}

TEST_CASE("cuda: weights that step at once step as they do one by one, and as on the CPU") {
  if (absent()) return;
  const std::unique_ptr<Backend> gpu = make_backend("cuda", Precision::bf16), cpu = make_cpu_backend(Precision::f32);
  const std::vector<std::byte> want = stepped(*cpu, DType::f32, true);
  for (DType gradient : {DType::f32, DType::bf16})
    for (bool at_once : {true, false}) {
      CAPTURE(name_of(gradient));
      CAPTURE(at_once);
      CHECK(stepped(*gpu, gradient, at_once) == want);
    }
}
