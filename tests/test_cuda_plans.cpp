// Matrix products on a GPU: the algorithm is chosen by measuring once, and by reading from then on.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstdlib>
#include <optional>

#include "cuda_lab.h"
#include "scratch.h"

using namespace signround;

namespace {

// Sets the file of plans until the end of the scope.
struct PlansIn {
  std::optional<std::string> before;
  explicit PlansIn(const Path& path) {
    if (const char* old = std::getenv("SIGNROUND_PLANS")) before = old;
    ::setenv("SIGNROUND_PLANS", path.c_str(), 1);
  }
  ~PlansIn() {
    if (before) ::setenv("SIGNROUND_PLANS", before->c_str(), 1);
    else ::unsetenv("SIGNROUND_PLANS");
  }
  PlansIn(const PlansIn&) = delete;
};

constexpr i64 kRows = 1024, kIn = 1024, kOut = 512;  // 1.07e9 operations: just large enough to be measured

// y, dx, dw; recorded: four times over, by a graph, and dw is added up.
std::vector<std::vector<double>> products(Backend& backend, bool recorded = false) {
  Lab lab(backend, DType::bf16);
  const Tensor x = lab.in(kRows, kIn), w = lab.weight(kOut, kIn, DType::bf16, DType::bf16), dy = lab.in(kRows, kOut);
  const Tensor y = lab.out(kRows, kOut), dx = lab.out(kRows, kIn), dw = lab.weight_gradient(kOut, kIn, Acc::set);
  if (recorded) backend.fill(dw, 0);
  const auto all = [&] {
    backend.linear(y, x, w, {}, {});
    backend.linear_bwd_x(dx, Acc::set, dy, w);
    backend.linear_bwd_w(dw, recorded ? Acc::add : Acc::set, dy, x);
  };
  if (recorded) backend.repeat(4, all, {});
  else all();
  return lab.results();
}

std::vector<std::vector<double>> on_gpu(bool recorded = false, bool graph = true) {
  return products(*make_backend("cuda", Precision::bf16, graph), recorded);
}

i64 lines_of(const std::string& text) { return std::count(text.begin(), text.end(), '\n'); }

}  // namespace

TEST_CASE("cuda: matrix products are measured once; from then on the same bits") {
  if (absent()) return;
  const TempDir dir;
  const PlansIn plans(dir / "plans");
  const auto want = products(*make_cpu_backend(Precision::f32));
  const auto near = [&](const std::vector<std::vector<double>>& got) {
    for (size_t i = 0; i < want.size(); ++i) CHECK(distance(got[i], want[i]) < 0x1p-8);
  };
  const auto first = on_gpu();
  near(first);
  const std::string record = read_file(dir / "plans", 1 << 20);
  INFO(record);
  CHECK(lines_of(record) == 4);  // its title and three products
  CHECK(contains(record, "algorithm "));
  CHECK(on_gpu() == first);
  CHECK(read_file(dir / "plans", 1 << 20) == record);

  std::string spoilt;  // choices that no library proposes: the first proposal, each time
  for (size_t at = 0; at < record.size();) {
    const size_t end = record.find('\n', at), tab = record.find('\t', at);
    spoilt += tab < end ? record.substr(at, tab - at) + "\talgorithm -1\n" : record.substr(at, end + 1 - at);
    at = end + 1;
  }
  write_file(dir / "plans", spoilt);
  const auto unmeasured = on_gpu();
  near(unmeasured);
  CHECK(read_file(dir / "plans", 1 << 20) == spoilt);
  const PlansIn nowhere{Path()};
  CHECK(on_gpu() == unmeasured);
}

TEST_CASE("cuda: where results are added to, the first proposal is settled on, and a graph repeats what its first run chose") {
  if (absent()) return;
  const TempDir dir;
  const PlansIn plans(dir / "plans");
  const auto want = products(*make_cpu_backend(Precision::f32), true);
  const auto first = on_gpu(true);
  for (size_t i = 0; i < want.size(); ++i) CHECK(distance(first[i], want[i]) < 0x1p-8);
  CHECK(lines_of(read_file(dir / "plans", 1 << 20)) == 4);
  CHECK(on_gpu(true) == first);
  CHECK(on_gpu(true, false) == first);
}
