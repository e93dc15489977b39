// CPU matrix products at the shapes of SmolLM2-135M's linears, against OpenBLAS where it is installed (it is loaded at run time, by
// this program only) and float32 against bf16. The sides take turns, so that a busy machine slows both; medians are printed.
//   bench-matmul [--json] [--tokens N] [--rounds R]
#include <dlfcn.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string_view>
#include <vector>

#include "ops/cpu/matmul.h"

using namespace signround;
using namespace signround::SIGNROUND_ISA;

namespace {

using Sgemm = void (*)(int order, int trans_a, int trans_b, int m, int n, int k, float alpha, const float* a, int lda, const float* b,
                       int ldb, float beta, float* c, int ldc);

Sgemm load_openblas() {
  void* library = dlopen("libopenblas.so.0", RTLD_NOW);
  if (library == nullptr) return nullptr;
  if (void* set_threads = dlsym(library, "openblas_set_num_threads")) reinterpret_cast<void (*)(int)>(set_threads)(thread_count());
  if (void* core = dlsym(library, "openblas_get_corename"))
    std::fprintf(stderr, "OpenBLAS kernels: %s\n", reinterpret_cast<char* (*)()>(core)());
  return reinterpret_cast<Sgemm>(dlsym(library, "cblas_sgemm"));
}

double seconds(const std::function<void()>& f) {
  const auto start = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double median(std::vector<double>& v) {
  std::nth_element(v.begin(), v.begin() + v.size() / 2, v.end());
  return v[v.size() / 2];
}

std::vector<float> random_floats(i64 n) {
  std::vector<float> v(n);
  u32 state = 1;
  for (float& x : v) x = static_cast<float>(static_cast<i32>(state = state * 1664525u + 1013904223u)) * 0x1p-31f;
  return v;
}

template <Precision P>
void product(int which, float* out, const float* first, const float* second, i64 tokens, i64 o, i64 i) {
  if (which == 0) matmul<P>(out, o, row_major(first, i), transposed(row_major(second, i)), tokens, o, i, Acc::set);
  if (which == 1) matmul<P>(out, i, row_major(first, o), row_major(second, i), tokens, i, o, Acc::set);
  if (which == 2) matmul<P>(out, i, transposed(row_major(first, o)), row_major(second, i), o, i, tokens, Acc::set);
}

void openblas(Sgemm sgemm, int which, float* out, const float* first, const float* second, int tokens, int o, int i) {
  constexpr int row = 101, no = 111, yes = 112;
  if (which == 0) sgemm(row, no, yes, tokens, o, i, 1, first, i, second, i, 0, out, o);
  if (which == 1) sgemm(row, no, no, tokens, i, o, 1, first, o, second, i, 0, out, i);
  if (which == 2) sgemm(row, yes, no, o, i, tokens, 1, first, o, second, i, 0, out, i);
}

}  // namespace

int main(int argc, char** argv) {
  bool json = false;
  int tokens = 1024, rounds = 31;
  for (int a = 1; a < argc; ++a) {
    const std::string_view arg = argv[a];
    if (arg == "--json") json = true;
    else if (arg == "--tokens" && a + 1 < argc) tokens = std::atoi(argv[++a]);
    else if (arg == "--rounds" && a + 1 < argc) rounds = std::atoi(argv[++a]);
    else return std::fprintf(stderr, "usage: bench-matmul [--json] [--tokens N] [--rounds R]\n"), 2;
  }
  const Sgemm sgemm = load_openblas();
  constexpr int shapes[][2] = {{576, 576}, {192, 576}, {1536, 576}, {576, 1536}};
  constexpr const char* products[] = {"forward", "dX", "dW"};
  if (!json) std::printf("%d threads, %d tokens, GFLOP/s\n%-10s %-8s %9s %9s %9s %8s %9s\n", thread_count(), tokens, "out x in",
                         "product", "openblas", "float32", "bf16", "f32/blas", "bf16/f32");
  for (const auto& [o, i] : shapes)
    for (int which = 0; which < 3; ++which) {
      const i64 x = i64{tokens} * i, y = i64{tokens} * o, w = i64{o} * i;
      const std::vector<float> first = random_floats(which == 0 ? x : y), second = random_floats(which == 2 ? x : w);
      std::vector<float> out(which == 0 ? y : which == 1 ? x : w);
      std::vector<double> blas, f32, half;
      for (int r = -2; r < rounds; ++r) {
        const double a = !sgemm ? 0 : seconds([&] { openblas(sgemm, which, out.data(), first.data(), second.data(), tokens, o, i); });
        const double b = seconds([&] { product<Precision::f32>(which, out.data(), first.data(), second.data(), tokens, o, i); });
        const double c = seconds([&] { product<Precision::bf16>(which, out.data(), first.data(), second.data(), tokens, o, i); });
        if (r >= 0) blas.push_back(a), f32.push_back(b), half.push_back(c);
      }
      const double gflop = 2e-9 * static_cast<double>(x) * o, b = median(f32), h = median(half), a = median(blas);
      char name[32];
      std::snprintf(name, sizeof name, "%dx%d", o, i);
      std::printf(json ? "{\"shape\": \"%s\", \"product\": \"%s\", \"openblas\": %.1f, \"float32\": %.1f, \"bf16\": %.1f, "
                         "\"float32_to_openblas\": %.3f, \"bf16_to_float32\": %.3f}\n"
                       : "%-10s %-8s %9.1f %9.1f %9.1f %8.2f %9.2f\n",
                  name, products[which], sgemm ? gflop / a : 0.0, gflop / b, gflop / h, sgemm ? a / b : 0.0, b / h);
    }
}
