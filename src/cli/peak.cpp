#include "cli/peak.h"

#include <algorithm>
#include <chrono>

namespace signround {

double matmul_tflops(Backend& backend) {
  using Clock = std::chrono::steady_clock;
  constexpr i64 kSide = 1024;
  constexpr double kFlops = 2.0 * kSide * kSide * kSide;
  const i64 bytes = aligned(kSide * kSide * bytes_of(backend.activation_type()));
  const Buffer memory(backend, 3 * bytes, "matrices to measure the device's speed");
  const auto matrix = [&](int i) {
    return view(static_cast<char*>(memory.data()) + i * bytes, backend.activation_type(), kSide, kSide);
  };
  backend.fill(matrix(1), 1);
  backend.fill(matrix(2), 1);
  double best = 0;
  const Clock::time_point begin = Clock::now();
  for (int i = 0; i < 2 || Clock::now() - begin < std::chrono::milliseconds(100); ++i) {
    const Clock::time_point start = Clock::now();
    backend.linear(matrix(0), matrix(1), matrix(2), Tensor());
    backend.synchronize();
    best = std::max(best, kFlops / std::chrono::duration<double>(Clock::now() - start).count());
  }
  return best / 1e12;
}

}  // namespace signround
