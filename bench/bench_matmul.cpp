// CPU matrix products at the shapes of SmolLM2-135M's linears: ours in float32 and bf16 beside OpenBLAS's sgemm, which only this
// program links. `make bench-cpu` is fair to both: OPENBLAS_CORETYPE=SkylakeX lets it use AVX-512 on a processor newer than
// its list of them, and OPENBLAS_THREAD_TIMEOUT=4 stops its threads from spinning on the cores while it is our turn.
//   bench_matmul [--json] [--tokens N] [--rounds R]
#include <cblas.h>

#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "base/threads.h"
#include "bench.h"
#include "ops/cpu/select.h"

using namespace signround;

extern "C" char* openblas_get_corename(void);

namespace {

enum Product { kForward, kDx, kDw };
constexpr const char* kNames[] = {"forward", "dX", "dW"};

// y[N,O] = x w^T from x[N,I], w[O,I];  x = y w;  w = y^T x
void ours(Backend& backend, Product product, Tensor y, Tensor x, Tensor w) {
  if (product == kForward) backend.linear(y, x, w, {}, {});
  if (product == kDx) backend.linear_bwd_x(x, Acc::set, y, w);
  if (product == kDw) backend.linear_bwd_w(w, Acc::set, y, x);
}

void openblas(Product product, float* y, float* x, float* w, int n, int o, int i) {
  if (product == kForward) cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, n, o, i, 1, x, i, w, i, 0, y, o);
  if (product == kDx) cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, n, i, o, 1, y, o, w, i, 0, x, i);
  if (product == kDw) cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, o, i, n, 1, y, o, x, i, 0, w, i);
}

}  // namespace

int main(int argc, char** argv) {
  bool json = false;
  int tokens = 1024, rounds = 31;
  for (int a = 1; a < argc; ++a) {
    const std::string_view arg = argv[a];
    if (arg == "--json") json = true;
    else if (arg == "--tokens" && a + 1 < argc) tokens = std::max(1, std::atoi(argv[++a]));
    else if (arg == "--rounds" && a + 1 < argc) rounds = std::max(1, std::atoi(argv[++a]));
    else return std::fprintf(stderr, "usage: bench_matmul [--json] [--tokens N] [--rounds R]\n"), 2;
  }
  const std::unique_ptr<Backend> f32 = make_cpu_backend(Precision::f32), half = make_cpu_backend(Precision::bf16);
  openblas_set_num_threads(thread_count());
  if (!json)
    std::printf("%s, %d threads, %d tokens, GFLOP/s; OpenBLAS kernels: %s\n%-10s %-8s %9s %9s %9s %9s %9s\n", f32->name().c_str(),
                thread_count(), tokens, openblas_get_corename(), "out x in", "product", "openblas", "float32", "bf16", "f32/blas",
                "bf16/f32");
  constexpr int shapes[][2] = {{576, 576}, {192, 576}, {1536, 576}, {576, 1536}};
  for (const auto& [o, i] : shapes) {
    std::vector<float> y = random_floats(i64{tokens} * o), x = random_floats(i64{tokens} * i), w = random_floats(i64{o} * i);
    for (const Product product : {kForward, kDx, kDw}) {
      const std::vector<double> t = median_seconds(rounds, {
          [&] { openblas(product, y.data(), x.data(), w.data(), tokens, o, i); },
          [&] { ours(*f32, product, matrix(y, o), matrix(x, i), matrix(w, i)); },
          [&] { ours(*half, product, matrix(y, o), matrix(x, i), matrix(w, i)); },
      });
      const double gflop = 2e-9 * tokens * o * i;
      char shape[32];
      std::snprintf(shape, sizeof shape, "%dx%d", o, i);
      std::printf(json ? "{\"shape\": \"%s\", \"product\": \"%s\", \"openblas\": %.1f, \"float32\": %.1f, \"bf16\": %.1f, "
                         "\"float32_to_openblas\": %.3f, \"bf16_to_float32\": %.3f}\n"
                       : "%-10s %-8s %9.1f %9.1f %9.1f %9.2f %9.2f\n",
                  shape, kNames[product], gflop / t[0], gflop / t[1], gflop / t[2], t[0] / t[1], t[1] / t[2]);
    }
  }
}
