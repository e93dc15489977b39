// What the benchmarks of the GPU share: tensors of random numbers, and a clock for work that the host only issues.
#pragma once
#include <list>

#include "bench.h"
#include "ops/devices.h"

namespace signround {

class GpuBench {
 public:
  Backend& backend;
  explicit GpuBench(Backend& backend) : backend(backend) {}

  // Uniform in [-1, 1) in float types; integers are left as they are. Lives as long as this.
  Tensor make(DType type, i64 rows, i64 cols) {
    const Tensor t = view(nullptr, type, rows, cols);
    memory_.emplace_back(backend, t.bytes(), "benchmark");
    const Tensor placed = view(memory_.back().data(), type, rows, cols);
    if (type == DType::u8 || type == DType::i32) return placed;
    const Tensor part = view(noise().data(), DType::f32, noise().bytes() / bytes_of(DType::f32));
    for (i64 at = 0; at < placed.size(); at += part.size()) {
      const i64 n = std::min(part.size(), placed.size() - at);
      backend.copy(view(static_cast<char*>(placed.data) + at * bytes_of(type), type, n), view(part.data, DType::f32, n));
    }
    return placed;
  }

  // Of one run: the median of several measurements, each long enough (10 ms) that what waiting costs does not count.
  double seconds(const std::function<void()>& op, const std::function<void()>& wait, int measurements = 11) const {
    const auto measured = [&](int runs, int rounds) {
      const auto several = [&] {
        for (int i = 0; i < runs; ++i) op();
        wait();
      };
      return median_seconds(rounds, {several})[0] / runs;
    };
    const double once = measured(1, 1);
    return measured(static_cast<int>(std::clamp(0.01 / once, 1.0, 100.0)), measurements);
  }
  double seconds(const std::function<void()>& op) const {
    return seconds(op, [&] { backend.synchronize(); });
  }

 private:
  const Buffer& noise() {
    if (noise_.bytes() == 0) {
      const std::vector<float> x = random_floats((1 << 22) + 3);
      noise_ = Buffer(backend, static_cast<i64>(x.size() * sizeof(float)), "noise");
      backend.upload(view(noise_.data(), DType::f32, static_cast<i64>(x.size())), x.data());
    }
    return noise_;
  }

  Buffer noise_;
  std::list<Buffer> memory_;
};

}  // namespace signround
