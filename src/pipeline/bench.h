// A block of a named size, with random weights, tuned for a few steps: what a step costs and where, beside what the device's own
// matrix products and copies would cost at the least. Needs no model.
#pragma once
#include <string>
#include <vector>

#include "pipeline/quantize.h"

namespace signround {

struct BenchShape {
  const char* name;
  i64 hidden, ffn, heads, kv_heads, head_dim;
  i64 experts = 0, active = 0;  // 0: none; ffn is that of an expert
};
extern const std::vector<BenchShape> kBenchShapes;

struct BenchOptions {
  std::string shape = "llama3-8b";
  QuantizeOptions run;  // spec, iters, nsamples, seqlen, batch_size, device, precision, memory, graph
};

// Of a step of the loop: all linears' forward, all attention, ...
struct BenchGroup {
  std::string name;
  double seconds = 0, floor = 0;  // measured; its arithmetic at the device's peak, or its bytes at the rate of its copies
};

struct BenchReport {
  std::string device;
  double peak_tflops = 0, copy_rate = 0;  // 1e12 operations, 1e9 bytes (read and written) per second
  double step_seconds = 0, step_tflops = 0;
  double chain_seconds = 0;  // of moving both chains through the block, once a block
  i64 weights = 0, device_bytes = 0, planned_bytes = 0;
  std::vector<BenchGroup> groups;
  double block_seconds(i64 steps) const { return chain_seconds + step_seconds * static_cast<double>(steps); }
};

BenchReport bench(const BenchOptions& options);

// 1e12 operations per second of the best of several square products of random numbers: of side 1024, or more where that is too
// quick to be measured.
double matmul_tflops(Backend& backend);
// 1e9 bytes per second, read and written, of a large copy.
double copy_gigabytes(Backend& backend);

}  // namespace signround
