// CPU attention, forward and backward, beside a large float32 matrix product: the two take turns, medians are printed. Operations are
// counted for the visible half only: 4 d a pair of query and key forward, 10 d backward.
//   bench-attention [--json] [--rounds R]
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <vector>

#include "ops/cpu/attention.h"

using namespace signround;
using namespace signround::SIGNROUND_ISA;

namespace {

template <class F>
double seconds(F f) {
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
  for (float& x : v) x = static_cast<float>(static_cast<i32>(state = state * 1664525u + 1013904223u)) * 0x1p-30f;
  return v;
}

}  // namespace

int main(int argc, char** argv) {
  bool json = false;
  int rounds = 11;
  for (int a = 1; a < argc; ++a) {
    const std::string_view arg = argv[a];
    if (arg == "--json") json = true;
    else if (arg == "--rounds" && a + 1 < argc) rounds = std::atoi(argv[++a]);
    else return std::fprintf(stderr, "usage: bench-attention [--json] [--rounds R]\n"), 2;
  }
  constexpr i64 side = 1152;
  const std::vector<float> a = random_floats(side * side), b = a;
  std::vector<float> c(side * side);
  if (!json)
    std::printf("%d threads, GFLOP/s\n%-28s %9s %9s %9s\n", thread_count(), "B x T, H/K heads, d", "forward", "backward", "matmul");
  constexpr i64 shapes[][5] = {{4, 2048, 9, 3, 64}, {8, 256, 9, 3, 64}, {8, 512, 8, 8, 128}};
  for (const auto& [batch, tokens, heads, kv_heads, d] : shapes) {
    const AttentionShape s{batch, tokens, heads, kv_heads, d, 1 / std::sqrt(static_cast<float>(d)), 0, 0, true};
    const i64 nq = batch * tokens * heads * d, nk = batch * tokens * kv_heads * d, nl = batch * tokens * heads;
    const std::vector<float> q = random_floats(nq), k = random_floats(nk), v = random_floats(nk), dout = random_floats(nq);
    std::vector<float> o(nq), lse(nl), delta(nl), dq(nq), dk(nk), dv(nk);
    std::vector<double> forward, backward, product;
    for (int r = -1; r < rounds; ++r) {
      const double f = seconds([&] { attention(o.data(), lse.data(), q.data(), k.data(), v.data(), s); });
      const double g = seconds([&] {
        attention_bwd(dq.data(), dk.data(), dv.data(), Acc::set, Acc::set, Acc::set, delta.data(), dout.data(), q.data(), k.data(),
                      v.data(), o.data(), lse.data(), s);
      });
      const double p = seconds([&] {
        matmul(c.data(), side, row_major(a.data(), side), row_major(b.data(), side), side, side, side, Acc::set);
      });
      if (r >= 0) forward.push_back(f), backward.push_back(g), product.push_back(p);
    }
    const double pairs = 1e-9 * static_cast<double>(batch * heads * d) * static_cast<double>(tokens * (tokens + 1) / 2);
    char name[64];
    std::snprintf(name, sizeof name, "%d x %d, %d/%d, %d", static_cast<int>(batch), static_cast<int>(tokens), static_cast<int>(heads),
                  static_cast<int>(kv_heads), static_cast<int>(d));
    std::printf(json ? "{\"shape\": \"%s\", \"forward\": %.1f, \"backward\": %.1f, \"matmul\": %.1f}\n"
                     : "%-28s %9.1f %9.1f %9.1f\n",
                name, 4 * pairs / median(forward), 10 * pairs / median(backward), 2e-9 * side * side * side / median(product));
  }
}
