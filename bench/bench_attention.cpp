// CPU attention, forward and backward, beside a large float32 matrix product. Operations are counted for the visible half only:
// 4 d for a pair of query and key forward, 10 d backward.
//   bench_attention [--json] [--rounds R]
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "base/threads.h"
#include "bench.h"
#include "ops/cpu/select.h"

using namespace signround;

int main(int argc, char** argv) {
  bool json = false;
  int rounds = 11;
  for (int a = 1; a < argc; ++a) {
    const std::string_view arg = argv[a];
    if (arg == "--json") json = true;
    else if (arg == "--rounds" && a + 1 < argc) rounds = std::max(1, std::atoi(argv[++a]));
    else return std::fprintf(stderr, "usage: bench_attention [--json] [--rounds R]\n"), 2;
  }
  const std::unique_ptr<Backend> backend = make_cpu_backend(Precision::f32);
  constexpr i64 side = 1152;
  std::vector<float> a = random_floats(side * side), b = a, c = a;
  if (!json)
    std::printf("%s, %d threads, GFLOP/s\n%-28s %9s %9s %9s\n", backend->name().c_str(), thread_count(), "B x T, H/K heads, d",
                "forward", "backward", "matmul");
  constexpr i64 shapes[][5] = {{4, 2048, 9, 3, 64}, {8, 256, 9, 3, 64}, {8, 512, 8, 8, 128}};
  for (const auto& [batch, tokens, heads, kv_heads, d] : shapes) {
    const AttentionShape s{batch, tokens, heads, kv_heads, d, 1 / std::sqrt(static_cast<float>(d)), 0, 0, true};
    const i64 rows = batch * tokens, cols = heads * d, kv_cols = kv_heads * d;
    std::vector<float> q = random_floats(rows * cols), dout = q, o = q, dq = q;
    std::vector<float> k = random_floats(rows * kv_cols), v = k, dk = k, dv = k;
    std::vector<float> lse(rows * heads), delta(rows * heads);
    const Tensor tq = matrix(q, cols), tk = matrix(k, kv_cols), tv = matrix(v, kv_cols);
    const Tensor to = matrix(o, cols), tl = matrix(lse, heads);
    const std::vector<double> t = median_seconds(rounds, {
        [&] { backend->attention(to, tl, tq, tk, tv, s); },
        [&] {
          backend->attention_bwd(matrix(dq, cols), matrix(dk, kv_cols), matrix(dv, kv_cols), Acc::set, Acc::set, Acc::set,
                                 matrix(delta, heads), matrix(dout, cols), tq, tk, tv, to, tl, s);
        },
        [&] { backend->linear(matrix(c, side), matrix(a, side), matrix(b, side), {}, {}); },
    });
    const double pairs = 1e-9 * static_cast<double>(batch * heads * d) * static_cast<double>(tokens * (tokens + 1) / 2);
    const std::string name = cat(batch, " x ", tokens, ", ", heads, "/", kv_heads, ", ", d);
    std::printf(json ? "{\"shape\": \"%s\", \"forward\": %.1f, \"backward\": %.1f, \"matmul\": %.1f}\n"
                     : "%-28s %9.1f %9.1f %9.1f\n",
                name.c_str(), 4 * pairs / t[0], 10 * pairs / t[1], 2e-9 * side * side * side / t[2]);
  }
}
