// The ladder of quantize-dequantize and of its backward with the sign step, on a matrix of 14336 x 4096 weights at W4G128 sym:
// bf16 weights and gradients, f32 offsets. Bytes are those that must move: 8 a weight forward (w, v; wq), 14 in the step with
// the next step's forward (dwq, w, v; v, wq), which the first rungs do by a kernel of its own. Compiled without fused
// multiply-adds, as the backend's: the formulas are one text, and so are the results.
#include "ladder.cuh"
#include "ops/qdq_math.h"

using namespace signround;
using namespace signround::cuda;

namespace {

constexpr i64 kRows = 14336, kCols = 4096, kWeights = kRows * kCols;
constexpr int kGroup = 128;
constexpr i64 kGroups = kWeights / kGroup;
constexpr QuantSpec kSpec{.bits = 4, .group = kGroup, .symmetric = true};

struct Layer {
  const bfloat *w, *dwq;
  const float *wmin, *wmax;
  bfloat* wq;
  float *v, *lo, *hi, *dv;  // dv: of the naive step alone
  float lr, minmax_lr;
  QuantSpec spec = kSpec;
};

__device__ Range<float> range_of(const Layer& l, i64 group) { return {l.wmin[group], l.wmax[group], l.lo[group], l.hi[group]}; }

// ---- 0: a thread a weight. Each finds the range of its group anew; the step writes dv down, and a second kernel takes its sign.

__global__ void naive_qdq(Layer l) {
  const i64 i = global_thread(), group = i / kGroup;
  float low = 0, high = 0;
  for (i64 j = group * kGroup; j < (group + 1) * kGroup; ++j) {
    low = fminf(low, widened(l.w[j]));
    high = fmaxf(high, widened(l.w[j]));
  }
  const Grid<float> grid = grid_of(Range<float>{low, high, l.lo[group], l.hi[group]}, l.spec);
  l.wq[i] = narrowed<bfloat>(value_of(level_of(widened(l.w[i]), l.v[i], grid), grid));
}
__global__ void naive_gradient(Layer l) {
  const i64 i = global_thread();
  const Grid<float> grid = grid_of(range_of(l, i / kGroup), l.spec);
  l.dv[i] = terms_of(widened(l.dwq[i]), level_of(widened(l.w[i]), l.v[i], grid), grid).dv;
}
// s, z: the sums S and Z of the group.
__device__ void step_range(const Layer& l, i64 group, Range<float> range, const Grid<float>& grid, float s, float z) {
  const std::array<float, 2> d = range_bwd(range, grid, s, z, l.spec);
  l.lo[group] = held(range.lo - l.minmax_lr * sign(d[0]), 0.0f, 1.0f);
  l.hi[group] = held(range.hi - l.minmax_lr * sign(d[1]), 0.0f, 1.0f);
}
__global__ void naive_range_step(Layer l) {  // a thread a group; before v changes
  const i64 group = global_thread();
  const Range<float> range = range_of(l, group);
  const Grid<float> grid = grid_of(range, l.spec);
  float s = 0, z = 0;
  for (i64 i = group * kGroup; i < (group + 1) * kGroup; ++i) {
    const Terms<float> terms = terms_of(widened(l.dwq[i]), level_of(widened(l.w[i]), l.v[i], grid), grid);
    s += terms.s;
    z += terms.z;
  }
  step_range(l, group, range, grid, s, z);
}
__global__ void naive_sign_step(Layer l) {
  const i64 i = global_thread();
  l.v[i] -= l.lr * sign(l.dv[i]);
}

void naive_forward(const Layer& l) {
  naive_qdq<<<blocks_for(kWeights), kBlock>>>(l);
  launched("naive qdq");
}
void naive_step(const Layer& l) {
  naive_gradient<<<blocks_for(kWeights), kBlock>>>(l);
  naive_range_step<<<blocks_for(kGroups), kBlock>>>(l);
  naive_sign_step<<<blocks_for(kWeights), kBlock>>>(l);
  launched("naive step");
}

// ---- 1: a block a group, a thread a weight. Ranges are known, sums are taken in the block, and of V's size only V is written.

constexpr int kWarps = kGroup / kWarp;
__device__ float group_sum(float x) {
  __shared__ float part[kWarps];
  x = warp_sum(x);
  __syncthreads();  // who still reads the part of an earlier call
  if (lane() == 0) part[threadIdx.x / kWarp] = x;
  __syncthreads();
  return (part[0] + part[1]) + (part[2] + part[3]);
}

__global__ void __launch_bounds__(kGroup) block_qdq(Layer l) {
  const i64 group = blockIdx.x, i = group * kGroup + threadIdx.x;
  const Grid<float> grid = grid_of(range_of(l, group), l.spec);
  l.wq[i] = narrowed<bfloat>(value_of(level_of(widened(l.w[i]), l.v[i], grid), grid));
}
__global__ void __launch_bounds__(kGroup) block_step(Layer l) {
  const i64 group = blockIdx.x, i = group * kGroup + threadIdx.x;
  const Range<float> range = range_of(l, group);
  const Grid<float> grid = grid_of(range, l.spec);
  const Terms<float> terms = terms_of(widened(l.dwq[i]), level_of(widened(l.w[i]), l.v[i], grid), grid);
  l.v[i] -= l.lr * sign(terms.dv);
  const float s = group_sum(terms.s), z = group_sum(terms.z);
  if (threadIdx.x == 0) step_range(l, group, range, grid, s, z);
}

void block_forward(const Layer& l) {
  block_qdq<<<static_cast<unsigned>(kGroups), kGroup>>>(l);
  launched("qdq, a block a group");
}
void block_backward(const Layer& l) {
  block_step<<<static_cast<unsigned>(kGroups), kGroup>>>(l);
  launched("step, a block a group");
}

// Share of elements that differ.
double different(const std::vector<float>& x, const std::vector<float>& y) {
  size_t count = 0;
  for (size_t i = 0; i < y.size(); ++i) count += !(x[i] == y[i]);
  return static_cast<double>(count) / static_cast<double>(y.size());
}

}  // namespace

int main() {
  const std::unique_ptr<Backend> backend = make_backend("cuda", Precision::bf16);
  Backend& b = *backend;
  Ladder ladder(b);
  GpuBench& bench = ladder.bench;
  const double limit = ladder.copy_rate();
  const i64 row_groups = kSpec.groups(kCols);
  const Tensor wq = bench.make(DType::bf16, kRows, kCols), dwq = bench.make(DType::bf16, kRows, kCols);
  QdqTensors x;
  x.w = bench.make(DType::bf16, kRows, kCols), x.v = bench.make(DType::f32, kRows, kCols);
  for (Tensor* range : {&x.wmin, &x.wmax, &x.lo, &x.hi}) *range = bench.make(DType::f32, kRows, row_groups);
  const Tensor v = bench.make(DType::f32, kRows, kCols), dv = bench.make(DType::f32, kRows, kCols);
  TuningState state{};
  state.lr = state.minmax_lr = view(bench.make(DType::f32, 1, 1).data, DType::f32, 1);
  state.counters = view(bench.make(DType::i32, 1, 4).data, DType::i32, 4);
  constexpr float kRate = 1e-3f;
  b.fill(state.lr, kRate), b.fill(state.counters, 0);
  b.group_range(x.wmin, x.wmax, x.w, kSpec);
  const auto start = [&] {  // what a step changes, as it was
    b.copy(x.v, v), b.fill(x.lo, 0.9f), b.fill(x.hi, 0.9f), b.fill(wq, NAN);
    ladder.wait();
  };
  const Layer layer{x.w.as<bfloat>(), dwq.as<bfloat>(), x.wmin.as<float>(), x.wmax.as<float>(), wq.as<bfloat>(),
                    x.v.as<float>(), x.lo.as<float>(), x.hi.as<float>(), dv.as<float>(), kRate, kRate};
  const auto shipped = [&] { b.qdq(wq, x, kSpec); };
  const QdqStep step{wq, x, dwq, kSpec};
  const auto shipped_step = [&] { b.qdq_step({&step, 1}, state); };
  constexpr i64 kCompared = i64{1} << 22;  // weights
  const auto learned = [&] {
    std::vector<float> all = ladder.read<float>(x.v, kCompared);
    for (Tensor t : {x.lo, x.hi}) {
      const std::vector<float> part = ladder.read<float>(t, kCompared / kGroup);
      all.insert(all.end(), part.begin(), part.end());
    }
    const std::vector<float> next = ladder.read<bf16>(wq, kCompared);
    all.insert(all.end(), next.begin(), next.end());
    return all;
  };
  start(), shipped();
  const std::vector<float> want = ladder.read<bf16>(wq, kCompared);
  shipped_step();
  const std::vector<float> want_learned = learned();
  const auto rungs = [&](const char* version, const auto& there, const auto& back) {
    start();
    there();
    ladder.rung("quantize-dequantize", version, "GB/s", 8.0 * kWeights, limit,
                different(ladder.read<bf16>(wq, kCompared), want), 0, there);
    start();
    back();
    // Sums in another order may come out with another sign where they are all but 0.
    ladder.rung("its backward, step and the next", version, "GB/s", 14.0 * kWeights, limit,
                different(learned(), want_learned), 1e-5, back);
  };
  const auto both = [&](auto step, auto forward) { return [&layer, step, forward] { step(layer), forward(layer); }; };
  rungs("0: a thread a weight; ranges found anew, dv in memory", [&] { naive_forward(layer); },
        both(naive_step, naive_forward));
  rungs("1: a block a group", [&] { block_forward(layer); }, both(block_backward, block_forward));
  rungs("2: cuda/, eight threads a group", shipped, shipped_step);
}
