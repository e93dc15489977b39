// A ladder: versions of one kernel from the naive one up, each checked against the backend's own, which is the last, and timed
// beside the same limit, measured in the same run. A JSON line a rung, with device, driver, toolkit and commit (of COMMIT, from
// the environment).
#pragma once
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>

#include "cuda/common.cuh"
#include "gpu.h"

namespace signround {

class Ladder {
 public:
  explicit Ladder(Backend& backend) : bench(backend) {
    int device = 0;
    cudaDeviceProp properties;
    cuda::cuda_check(cudaGetDevice(&device), "cudaGetDevice");
    cuda::cuda_check(cudaGetDeviceProperties(&properties, device), "cudaGetDeviceProperties");
    const char* commit = std::getenv("COMMIT");
    facts_ = cat("\"device\": \"", properties.name, "\", \"driver\": \"", driver(), "\", \"toolkit\": \"", CUDART_VERSION / 1000,
                 '.', CUDART_VERSION % 1000 / 10, "\", \"commit\": \"", commit ? commit : "", '"');
  }

  GpuBench bench;

  double seconds(const std::function<void()>& op) const { return bench.seconds(op, wait); }
  static void wait() { cuda::cuda_check(cudaDeviceSynchronize(), "a kernel"); }

  // unit: "TFLOP/s" or "GB/s"; amount: operations or bytes of one run at the least; limit in that unit; note: what else there
  // is to say. A rung whose results are not the backend's is a bug, and ends the program.
  void rung(const char* what, const std::string& version, const char* unit, double amount, double limit, double distance,
            double allowed, const std::function<void()>& op, const std::string& note = "") const {
    check(distance <= allowed, ErrorKind::bug, what, ", ", version, ": results are off by ", distance, ", allowed ", allowed);
    const double time = seconds(op), rate = amount / time / (*unit == 'T' ? 1e12 : 1e9);
    std::printf("{\"what\": \"%s\", \"version\": \"%s\", \"ms\": %.4f, \"%s\": %.1f, \"limit\": %.1f, \"share\": %.3f, "
                "\"off\": %.1e%s%s%s, %s}\n",
                what, version.c_str(), time * 1e3, unit, rate, limit, rate / limit, distance,
                note.empty() ? "" : ", \"note\": \"", note.c_str(), note.empty() ? "" : "\"", facts_.c_str());
    std::fflush(stdout);
  }

  // TFLOP/s of a product of two matrices of that side; GB/s, read and written, of a copy.
  double product_rate() {
    constexpr i64 side = 8192;
    const Tensor x = bench.make(DType::bf16, side, side), y = bench.make(DType::bf16, side, side);
    return 2e-12 * side * side * side / seconds([&] { bench.backend.linear(y, x, x, {}, {}); });
  }
  double copy_rate() {
    const Tensor from = bench.make(DType::bf16, 16384, 14336), to = bench.make(DType::bf16, 16384, 14336);
    return 2e-9 * static_cast<double>(from.bytes()) / seconds([&] { bench.backend.copy(to, from); });
  }

  // The first `count` elements, as float.
  template <class T>
  std::vector<float> read(Tensor t, i64 count) const {
    std::vector<T> x(static_cast<size_t>(count));
    wait();  // the backend's stream does not wait for the others
    bench.backend.download(x.data(), view(t.data, t.dtype, count));
    return std::vector<float>(x.begin(), x.end());
  }

 private:
  // "580.159.04" where the kernel module tells, else the version of CUDA that the driver knows.
  static std::string driver() {
    std::ifstream module("/proc/driver/nvidia/version");
    for (std::string word; module >> word;)
      if (word[0] >= '0' && word[0] <= '9' && word.find('.') != word.npos) return word;
    int version = 0;
    cudaDriverGetVersion(&version);
    return cat("CUDA ", version / 1000, '.', version % 1000 / 10);
  }

  std::string facts_;
};

// |x - y| as a share of |y|.
inline double distance(const std::vector<float>& x, const std::vector<float>& y) {
  double difference = 0, size = 0;
  for (size_t i = 0; i < y.size(); ++i) {
    difference += (double{x[i]} - y[i]) * (double{x[i]} - y[i]);
    size += double{y[i]} * y[i];
  }
  return std::sqrt(difference / (size > 0 ? size : 1));
}

}  // namespace signround
