// The backward of a linear in fp8 against that in bf16.
#include <doctest/doctest.h>

#include "cuda_lab.h"

using namespace signround;

namespace {

struct Case {
  i64 rows, out, in;
  bool dx, dw;
  Acc acc = Acc::set;
  DType weight_grad = DType::f32;
};

// Numbers whose size differs from tile to tile, by up to 2^6: a scale in a wrong place is seen.
Tensor uneven(Lab& lab, Random& random, i64 rows, i64 cols) {
  std::vector<double> x = random.values(rows * cols);
  const auto exponent = [](i64 row, i64 column) { return static_cast<int>((row / 128 * 3 + column / 128 * 5) % 7); };
  for (i64 r = 0; r < rows; ++r)
    for (i64 c = 0; c < cols; ++c) x[r * cols + c] = std::ldexp(x[r * cols + c], exponent(r, c));
  const Tensor t = lab.raw(rows, cols, DType::bf16);
  lab.backend.upload(t, converted<bf16>(x).data());
  return t;
}

// dx and dw, those that are wanted.
std::vector<std::vector<double>> backward(Lab& lab, const Case& c) {
  Random random(3);
  const Tensor dy = uneven(lab, random, c.rows, c.out), x = uneven(lab, random, c.rows, c.in);
  const Tensor w = uneven(lab, random, c.out, c.in);
  const auto gradient = [&](i64 rows, i64 cols, DType type) {
    const Tensor t = lab.raw(rows, cols, type);
    if (c.acc == Acc::add) lab.backend.copy(t, rows == c.out ? w : x);
    return t;
  };
  const Tensor dx = c.dx ? gradient(c.rows, c.in, DType::bf16) : Tensor{};
  const Tensor dw = c.dw ? gradient(c.out, c.in, c.weight_grad) : Tensor{};
  const i64 bytes = lab.backend.linear_scratch({c.rows, c.out, c.in, c.dx, c.dw});
  const Tensor scratch = bytes > 0 ? lab.raw(1, bytes, DType::u8) : Tensor{};
  lab.backend.linear_bwd(dx, c.acc, dw, c.acc, dy, x, w, scratch);
  std::vector<std::vector<double>> all;
  for (Tensor t : {dx, dw})
    if (t) all.push_back(lab.read(t));
  return all;
}

}  // namespace

TEST_CASE("cuda: gradients in fp8 are those in bf16 but for rounding") {
  if (absent() || no_fp8()) return;
  const std::unique_ptr<Backend> fp8 = make_backend("cuda", Precision::fp8);
  for (const Case& c : {Case{2304, 2320, 2400, true, true}, {2304, 2320, 2400, true, true, Acc::add},
                        {2304, 2320, 2400, true, true, Acc::set, DType::bf16}, {3104, 272, 3200, true, false},
                        {528, 4112, 3200, false, true}}) {
    CAPTURE(c.rows);
    CAPTURE(c.dw);
    Lab exact(shared_gpu(Precision::bf16), DType::bf16), first(*fp8, DType::bf16), second(*fp8, DType::bf16);
    REQUIRE(fp8->linear_scratch({c.rows, c.out, c.in, c.dx, c.dw}) > 0);
    const auto want = backward(exact, c), got = backward(first, c), again = backward(second, c);
    REQUIRE(got.size() == want.size());
    for (size_t i = 0; i < got.size(); ++i) {
      CHECK(got[i] == again[i]);
      CHECK(wrong_signs(got[i], want[i]) < 1e-3);
      // e4m3 rounds by 2.6 % in the mean, both factors: 3.7 %. In every stretch of rows of a tile's height.
      const size_t stretch = static_cast<size_t>(128 * c.in);
      for (size_t at = 0; at < got[i].size(); at += stretch) {
        const auto part = [&](const std::vector<double>& all) {
          const auto first = all.begin() + static_cast<std::ptrdiff_t>(at);
          return std::vector<double>(first, first + static_cast<std::ptrdiff_t>(std::min(stretch, all.size() - at)));
        };
        const double error = distance(part(got[i]), part(want[i]));
        CHECK(error < 0.05);
        CHECK(error > 0.005);  // and it was fp8
      }
    }
    CHECK(first.canaries_live());
  }
}

TEST_CASE("cuda: what fp8 does not pay for or cannot do stays as it is") {
  if (absent() || no_fp8()) return;
  const std::unique_ptr<Backend> fp8 = make_backend("cuda", Precision::fp8);
  CHECK(fp8->linear_scratch({16384, 576, 576, true, true}) == 0);      // small
  CHECK(fp8->linear_scratch({16384, 4096, 4100, true, true}) == 0);    // not a multiple of 16
  CHECK(fp8->linear_scratch({16384, 4096, 4096, false, false}) == 0);  // nothing is wanted
  CHECK(fp8->linear_scratch({16384, 4096, 4096, true, true}) > 0);
  CHECK(shared_gpu(Precision::bf16).linear_scratch({16384, 4096, 4096, true, true}) == 0);
  const Case small{64, 48, 80, true, true};
  Lab ours(*fp8, DType::bf16), plain(shared_gpu(Precision::bf16), DType::bf16);
  CHECK(backward(ours, small) == backward(plain, small));
}
