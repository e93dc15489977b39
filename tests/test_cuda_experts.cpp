// The ops of a mixture of experts on the GPU, as tests/test_cuda.cpp has the others.
#include <doctest/doctest.h>

#include "cuda_lab.h"

using namespace signround;

namespace {

struct Sizes {
  i64 rows, experts, active, in, out;
  i64 choices() const { return rows * active; }
};
constexpr Sizes kSizes[] = {{1, 1, 1, 1, 1}, {7, 5, 2, 17, 19}, {300, 40, 6, 136, 264}, {513, 3, 2, 264, 520}};

// What route() writes beside the weights.
struct Choice {
  Tensor order, bounds, seen;
  Choice(Lab& lab, const Sizes& s)
      : order(lab.integers(std::vector<i32>(static_cast<size_t>(3 * s.choices()), -1))),
        bounds(lab.integers(std::vector<i32>(static_cast<size_t>(s.experts + 1), -1))),
        seen(lab.integers(std::vector<i32>(static_cast<size_t>(s.experts), 5))) {}
  std::vector<i32> all(Lab& lab) const {
    std::vector<i32> values;
    for (const Tensor& t : {order, bounds, seen}) {
      std::vector<i32> part(static_cast<size_t>(t.size()));
      lab.backend.download(part.data(), t);
      values.insert(values.end(), part.begin(), part.end());
    }
    return values;
  }
};

}  // namespace

TEST_CASE("cuda: experts: the choices are the CPU's, sorted alike") {
  if (absent()) return;
  const std::unique_ptr<Backend> gpu = make_backend("cuda", Precision::f32);
  CpuBackend<float> cpu(Precision::f32, "float");
  for (const Sizes& s : {Sizes{5000, 9, 3, 1, 1}, {300, 2000, 6, 1, 1}, kSizes[0], kSizes[1]})
    for (DType rounded : {DType::f32, DType::bf16}) {  // rounded to bf16 some logits are equal
      std::vector<i32> got[2];
      Backend* backends[] = {&cpu, gpu.get()};
      for (int i = 0; i < 2; ++i) {
        Lab lab(*backends[i], rounded);
        const Choice c(lab, s);
        lab.backend.route(lab.out(s.rows, s.active), c.order, c.bounds, c.seen, lab.in(s.rows, s.experts), false);
        got[i] = c.all(lab);
        CHECK(lab.canaries_live());
      }
      CHECK(got[0] == got[1]);
    }
}

TEST_CASE("cuda: experts: routing, there and back") {
  if (absent()) return;
  for (const Sizes& s : kSizes)
    for (Acc acc : {Acc::set, Acc::add})
      for (bool normalized : {false, true})
        compare(cat("experts ", s.rows, " ", normalized), [&](Lab& lab) {
          const Tensor z = lab.in(s.rows, s.experts, -3, 3), x = lab.in(s.rows, s.in), dx = lab.in(s.rows, s.in);
          const Tensor rows = lab.in(s.choices(), s.in);
          const Tensor given = lab.in(s.rows, s.active, 0, 1), dweights = lab.in(s.rows, s.active);
          const Tensor g = lab.in(s.rows, 1, -3, 3);
          const Choice c(lab, s);
          Backend& b = lab.backend;
          b.route(lab.out(s.rows, s.active), c.order, c.bounds, c.seen, z, normalized);
          b.route_bwd(lab.gradient(s.rows, s.experts, acc), acc, dweights, z, given, c.order, normalized);
          b.dispatch(lab.out(s.choices(), s.in), x, c.order);
          b.dispatch_bwd(lab.gradient(s.rows, s.in, acc), acc, rows, c.order);
          b.combine(lab.out(s.rows, s.in), rows, given, c.order);
          const Tensor drows = lab.gradient(s.choices(), s.in, acc), dgiven = lab.gradient(s.rows, s.active, acc);
          b.combine_bwd(drows, dgiven, acc, acc, dx, rows, given, c.order);
          b.sigmoid_gate(lab.out(s.rows, s.in), x, g);
          const Tensor dgated = lab.gradient(s.rows, s.in, acc), dg = lab.gradient(s.rows, 1, acc);
          b.sigmoid_gate_bwd(dgated, dg, acc, acc, dx, x, g);
        });
}

TEST_CASE("cuda: experts: their linear") {
  if (absent()) return;
  for (const Sizes& s : kSizes)
    for (DType weights : {DType::f32, DType::f16, DType::bf16})
      for (Acc acc : {Acc::set, Acc::add})
        compare(cat("expert_linear ", s.rows, "x", s.in, "x", s.out, " ", name_of(weights)), [&](Lab& lab) {
          // Some experts have no row, one has many.
          std::vector<i32> bounds;
          for (i64 e = 0; e <= s.experts; ++e)
            bounds.push_back(static_cast<i32>(e == s.experts ? s.choices() : s.choices() * (e / 2) / (2 * s.experts)));
          const Tensor x = lab.in(s.choices(), s.in), w = lab.weight(s.experts * s.out, s.in, weights, DType::bf16);
          const Tensor dy = lab.in(s.choices(), s.out), at = lab.integers(bounds);
          lab.backend.expert_linear(lab.out(s.choices(), s.out), x, w, at);
          lab.backend.expert_linear_bwd_x(lab.gradient(s.choices(), s.in, acc), acc, dy, w, at);
          lab.backend.expert_linear_bwd_w(lab.weight_gradient(s.experts * s.out, s.in, acc), acc, dy, x, at);
        });
}
