// Quantize-dequantize and its backward fused with the sign step. Formulas: ops/qdq_math.h, shared with the CPU; the results are
// the CPU's to the bit, and so this file is compiled without fused multiply-adds.
//
// Where there are sums, eight threads a group (qdq.cuh): a warp reads whole sectors of four groups at a time. Each weight costs 8
// bytes forward (read w, v; write wq) and 14 in the step with a bf16 gradient (read dwq, w, v; write v, wq): bound by memory.
#include "cuda/backend.h"
#include "cuda/qdq.cuh"

namespace signround::cuda {
namespace {

constexpr int kStepBlock = 128;  // threads: a small matrix still has a block for every multiprocessor

constexpr int kTeam = 8, kLanes = kTeam * kHeld;

struct Matrix {
  i64 cols, group, groups_per_row, groups;
};

Matrix matrix_of(Tensor w, const QuantSpec& spec) {
  return {w.cols(), spec.group_of(w.cols()), spec.groups(w.cols()), w.rows() * spec.groups(w.cols())};
}

// The group of this thread: where it begins and how many weights it has; none past the last group, where a thread only takes
// part in the sums of its warp.
struct Place {
  i64 group, at, n;
  __device__ explicit Place(const Matrix& m, i64 thread = global_thread()) : group(thread / kTeam), at(0), n(0) {
    if (group >= m.groups) return;
    const u32 row = static_cast<u32>(group) / static_cast<u32>(m.groups_per_row);
    const i64 first = (group - row * m.groups_per_row) * m.group;
    at = row * m.cols + first;
    n = min(m.group, m.cols - first);
  }
  __device__ bool exists() const { return n > 0; }
  __device__ static int member() { return static_cast<int>(threadIdx.x % kTeam); }
};

// A group's bounds, 0 among them; NaN is passed over.
template <bool whole, class W>
__global__ void range_kernel(float* wmin, float* wmax, const W* w, Matrix m) {
  const Place place(m);
  float low = 0, high = 0;  // -min, max
  for (i64 i = Place::member() * kHeld; i < place.n; i += kLanes) {
    const Pack<W, kHeld> in = load_some<whole>(w + place.at + i, place.n - i);
#pragma unroll
    for (int j = 0; j < kHeld; ++j) {
      const float x = widened(in.x[j]);
      low = -x > low ? -x : low;
      high = x > high ? x : high;
    }
  }
#pragma unroll
  for (int step = kTeam / 2; step > 0; step /= 2) {
    low = fmaxf(low, __shfl_xor_sync(~0u, low, step));
    high = fmaxf(high, __shfl_xor_sync(~0u, high, step));
  }
  if (!place.exists() || Place::member() != 0) return;
  wmin[place.group] = -low;
  wmax[place.group] = high;
}

// No sums here, so a thread takes V neighbours of one group: a row is the grid's first dimension, its stretches the second.
template <int V, class W>
__global__ void qdq_kernel(W* __restrict__ wq, const W* __restrict__ w, const float* __restrict__ v, Ranges ranges, Matrix m,
                           QuantSpec spec) {
  const i64 row = blockIdx.x, column = (static_cast<i64>(blockIdx.y) * blockDim.x + threadIdx.x) * V, at = row * m.cols + column;
  if (column >= m.cols) return;
  const Pack<W, V> in = load<V>(w + at);
  const Pack<float, V> offset = load<V>(v + at);
  const i64 group = static_cast<u32>(column) / static_cast<u32>(m.group);
  const Grid<float> grid = grid_of(ranges.of(row * m.groups_per_row + group), spec);
  Pack<W, V> out;
#pragma unroll
  for (int j = 0; j < V; ++j) out.x[j] = narrowed<W>(value_of(level_of(widened(in.x[j]), offset.x[j], grid), grid));
  store<V>(wq + at, out);
}

// The weights of a launch, each a QdqStep with types and with blocks of its own.
template <class W, class G>
struct StepItem {
  W* wq;
  float* v;
  const W* w;
  const G* dwq;
  float *lo, *hi;
  const float *wmin, *wmax;
  Matrix m;
  QuantSpec spec;
  float most;
};
constexpr int kMostItems = 16;
template <class W, class G>
struct StepItems {
  StepItem<W, G> item[kMostItems];
  unsigned first[kMostItems + 1];  // block of each item; then the number of blocks
};

// v -= lr sign(dv),  lo, hi = clamp(. - minmax_lr sign(d.), 0, most),  and wq of the three as they are then.
template <bool whole, class W, class G>
__global__ void __launch_bounds__(kStepBlock, 5)
    step_kernel(const __grid_constant__ StepItems<W, G> items, Rates rates, Faults* faults) {
  int mine = 0;
  while (blockIdx.x >= items.first[mine + 1]) ++mine;
  const StepItem<W, G>& item = items.item[mine];
  const Matrix m = item.m;
  const QuantSpec spec = item.spec;
  // Restricted, or stores to them would be split into single elements.
  W* __restrict__ const wq = item.wq;
  float* __restrict__ const v = item.v;
  const W* __restrict__ const w = item.w;
  const G* __restrict__ const dwq = item.dwq;
  // The reads of a stretch of kDepth packs are all under way before the first is used: stores to v in between would hold the next
  // ones up. The last stretch stays in registers, so that of groups of up to 128 weights nothing is read twice.
  constexpr int kDepth = 4;
  const Place place(m, static_cast<i64>(blockIdx.x - items.first[mine]) * kStepBlock + threadIdx.x);
  const i64 begin = Place::member() * kHeld, stretch = kDepth * kLanes;
  Pack<W, kHeld> in[kDepth];
  Pack<G, kHeld> gradient[kDepth];
  Pack<float, kHeld> offset[kDepth];
  const auto for_packs = [&](i64 first, auto f) {  // f(k, where pack k lies, weights that are left there)
    const i64 at = place.at + first;
    const int left = static_cast<int>(place.n - first);
#pragma unroll
    for (int k = 0; k < kDepth; ++k)
      if (k * kLanes < left) f(k, at + k * kLanes, left - k * kLanes);
  };
  const auto read = [&](i64 first, bool with_gradient) {
    for_packs(first, [&](int k, i64 at, int left) {
      in[k] = load_some<whole>(w + at, left);
      if (with_gradient) gradient[k] = load_some<whole>(dwq + at, left);
      offset[k] = load_some<whole>(v + at, left);
    });
  };
  Grid<float> grid;
  Divisor scale;
  const auto find_ratios = [&](float (&ratio)[kHeld], const Pack<W, kHeld>& weights) {
#pragma unroll
    for (int j = 0; j < kHeld; ++j) ratio[j] = widened(weights.x[j]) + grid.offset;
    scale.divide(ratio);
  };

  read(begin, true);
  Range<float> range = place.exists() ? Ranges{item.wmin, item.wmax, item.lo, item.hi}.of(place.group) : Range<float>{};
  const i32 step = rates.now->step;
  if (step < 0 || step >= rates.steps) {
    if (global_thread() == 0) report(faults, Fault::step, rates.steps, step);
    return;
  }
  const float lr = rates.lr[step], minmax_lr = rates.minmax_lr[step];
  grid = grid_of(range, spec), scale = Divisor(grid.scale);
  float sum_s[kHeld] = {}, sum_z[kHeld] = {};
  for (i64 first = begin; first < place.n; first += stretch) {
    if (first > begin) read(first, true);
    for_packs(first, [&](int k, i64 at, int left) {
      float ratio[kHeld];
      find_ratios(ratio, in[k]);
#pragma unroll
      for (int j = 0; j < kHeld; ++j) {
        if (!whole && j >= left) continue;
        const Level<float> level = level_at(ratio[j], offset[k].x[j], grid);
        const Terms<float> terms = terms_of(widened(gradient[k].x[j]), level, grid);
        sum_s[j] += terms.s;
        sum_z[j] += terms.z;
        offset[k].x[j] -= lr * sign(terms.dv);
      }
      store_some<whole>(v + at, left, offset[k]);
    });
  }
  const float s = team_total<kTeam>(sum_s), z = team_total<kTeam>(sum_z);  // in the team's first thread, which tells the others
  const std::array<float, 2> d = range_bwd(range, grid, s, z, spec);
  range.lo = __shfl_sync(~0u, held(range.lo - minmax_lr * sign(d[0]), 0.0f, item.most), 0, kTeam);
  range.hi = __shfl_sync(~0u, held(range.hi - minmax_lr * sign(d[1]), 0.0f, item.most), 0, kTeam);
  if (place.exists() && Place::member() == 0) {
    item.lo[place.group] = range.lo;
    item.hi[place.group] = range.hi;
  }

  grid = grid_of(range, spec), scale = Divisor(grid.scale);
  for (i64 first = begin; first < place.n; first += stretch) {
    if (m.group > stretch) read(first, false);
    for_packs(first, [&](int k, i64 at, int left) {
      float ratio[kHeld];
      find_ratios(ratio, in[k]);
      Pack<W, kHeld> out;
#pragma unroll
      for (int j = 0; j < kHeld; ++j)
        out.x[j] = narrowed<W>(value_of(level_at(ratio[j], offset[k].x[j], grid), grid));
      store_some<whole>(wq + at, left, out);
    });
  }
}

// One trial after another; a group's weights stay in the first cache.
template <bool whole, class W>
__global__ void search_kernel(float* lo, float* hi, const W* __restrict__ w, const float* __restrict__ h, const float* wmin,
                              const float* wmax, Matrix m, QuantSpec spec) {
  const Place place(m);
  Range<float> range = place.exists() ? Ranges{wmin, wmax, lo, hi}.of(place.group) : Range<float>{};
  const float* costs = h + place.at % m.cols;
  Trial<float> best{};
  for (int k = kFirstTrial - 1; k <= kLastTrial; ++k) {
    range.lo = range.hi = k < kFirstTrial ? 1.0f : trial_factor<float>(k);
    const Grid<float> grid = grid_of(range, spec);
    float sum[kHeld] = {};
    for (i64 i = Place::member() * kHeld; i < place.n; i += kLanes) {
      const i64 left = place.n - i;
      const Pack<W, kHeld> in = load_some<whole>(w + place.at + i, left);
      const Pack<float, kHeld> cost = load_some<whole>(costs + i, left);
#pragma unroll
      for (int j = 0; j < kHeld; ++j)
        if (whole || j < left) sum[j] += error_of(widened(in.x[j]), cost.x[j], grid);
    }
    const Trial<float> trial{range.lo, team_total<kTeam>(sum)};
    best = k < kFirstTrial ? trial : better(best, trial);
  }
  if (!place.exists() || Place::member() != 0) return;
  lo[place.group] = hi[place.group] = best.factor;
}

// A block takes a warp's width of columns; its warps share the rows and add up in their order.
constexpr int kSlices = 32;

template <class T>
__global__ void squares_kernel(float* h, const T* __restrict__ x, i64 rows, i64 cols) {
  __shared__ float sums[kSlices][kWarp];
  const i64 column = static_cast<i64>(blockIdx.x) * kWarp + lane();
  const int slice = static_cast<int>(threadIdx.x) / kWarp;
  float sum = 0;
  if (column < cols) {
#pragma unroll 8
    for (i64 row = slice; row < rows; row += kSlices) {
      const float value = widened(x[row * cols + column]);
      sum += value * value;
    }
  }
  sums[slice][lane()] = sum;
  __syncthreads();
  if (slice != 0 || column >= cols) return;
  for (int s = 1; s < kSlices; ++s) sum += sums[s][lane()];
  h[column] += sum;
}

template <bool whole, class W>
__global__ void codes_kernel(u8* codes, half* scale, u8* zero, const W* w, const float* v, Ranges ranges, Matrix m,
                             QuantSpec spec) {
  const Place place(m);
  if (!place.exists()) return;
  const Grid<float> grid = grid_of(ranges.of(place.group), spec);
  for (i64 i = Place::member() * kHeld; i < place.n; i += kLanes) {
    const i64 at = place.at + i, left = place.n - i;
    const Pack<W, kHeld> in = load_some<whole>(w + at, left);
    const Pack<float, kHeld> offset = load_some<whole>(v + at, left);
    Pack<u8, kHeld> out;
#pragma unroll
    for (int j = 0; j < kHeld; ++j)
      out.x[j] = static_cast<u8>(static_cast<int>(level_of(widened(in.x[j]), offset.x[j], grid).q + grid.zero));
    store_some<whole>(codes + at, left, out);
  }
  if (Place::member() != 0) return;
  scale[place.group] = narrowed<half>(grid.scale);
  zero[place.group] = static_cast<u8>(static_cast<int>(grid.zero));
}

void fits_qdq(const QdqTensors& q, const QuantSpec& spec) {
  const i64 groups = q.w.rows() * spec.groups(q.w.cols());
  fits(q.w.size() > 0 && q.v.size() == q.w.size() && q.wmin.size() == groups && q.wmax.size() == groups &&
           q.lo.size() == groups && q.hi.size() == groups && fits_spec(spec, q.w.cols()), "qdq");
}

bool is_whole(const QdqStep& s) { return are_whole(s.q.w, s.spec, {s.wq.data, s.q.v.data, s.dwq.data}); }
bool same_kernel(const QdqStep& a, const QdqStep& b) {
  return !a.spec.two_levels() && !b.spec.two_levels() && a.q.w.dtype == b.q.w.dtype && a.dwq.dtype == b.dwq.dtype &&
         is_whole(a) == is_whole(b);
}

// One launch for up to kMostItems weights of the same kernel: blocks of small ones would not fill a GPU before the last is done.
void step_side_by_side(std::span<const QdqStep> weights, const Rates& rates, Faults* faults, cudaStream_t stream) {
  const QdqStep& like = weights.front();
  const auto run = [&]<class G>(const G*) {
    with_weights(like.q.w, like.spec, {like.wq.data, like.q.v.data, like.dwq.data}, [&]<class W, class Whole>(const W*, Whole) {
      StepItems<W, G> items{};
      for (size_t i = 0; i < weights.size(); ++i) {
        const auto& [wq, q, dwq, spec, most] = weights[i];
        const Matrix m = matrix_of(q.w, spec);
        items.item[i] = {wq.as<W>(), q.v.as<float>(), q.w.as<W>(), dwq.as<G>(), q.lo.as<float>(), q.hi.as<float>(),
                         q.wmin.as<float>(), q.wmax.as<float>(), m, spec, most};
        items.first[i + 1] = items.first[i] + static_cast<unsigned>(divide_up(m.groups * kTeam, kStepBlock));
      }
      step_kernel<Whole::value><<<items.first[weights.size()], kStepBlock, 0, stream>>>(items, rates, faults);
    });
  };
  if (like.dwq.dtype == DType::bf16) run(like.dwq.as<bfloat>());
  else run(like.dwq.as<float>());
  launched("qdq_step");
}

}  // namespace

void CudaBackend::group_range(Tensor wmin, Tensor wmax, Tensor w, const QuantSpec& spec) {
  const Matrix m = matrix_of(w, spec);
  fits(m.groups > 0 && wmin.size() == m.groups && wmax.size() == m.groups, "group_range");
  with_weights(w, spec, {}, [&](const auto* weights, auto whole) {
    range_kernel<whole><<<blocks_for(m.groups * kTeam), kBlock, 0, stream_>>>(wmin.as<float>(), wmax.as<float>(), weights, m);
  });
  launched("group_range");
}

void CudaBackend::qdq(Tensor wq, const QdqTensors& q, const QuantSpec& spec) {
  fits_qdq(q, spec);
  fits(wq.size() == q.w.size() && wq.dtype == q.w.dtype, "qdq");
  if (spec.two_levels()) return qdq_two_levels(wq, q, spec, stream_);
  const Matrix m = matrix_of(q.w, spec);
  constexpr int kWide = 8;
  const bool wide = m.cols % kWide == 0 && m.group % kWide == 0 && aligned_to(16, {wq.data, q.w.data, q.v.data});
  with_type(q.w, [&]<class W>(const W* w) {
    const auto run = [&](auto V) {
      const i64 threads = std::min<i64>(kBlock, divide_up(divide_up(m.cols, V), kWarp) * kWarp);
      const dim3 grid(static_cast<unsigned>(q.w.rows()), static_cast<unsigned>(divide_up(m.cols, threads * V)));
      qdq_kernel<V()><<<grid, static_cast<unsigned>(threads), 0, stream_>>>(wq.as<W>(), w, q.v.as<float>(), ranges_of(q), m,
                                                                            spec);
    };
    if (wide) run(std::integral_constant<int, kWide>{});
    else run(std::integral_constant<int, 1>{});
  });
  launched("qdq");
}

void CudaBackend::qdq_step(std::span<const QdqStep> weights, const TuningState& state) {
  const Rates rates{state.lr.as<float>(), state.minmax_lr.as<float>(), state.now(), state.lr.size()};
  fits(state.minmax_lr.size() == rates.steps, "qdq_step");
  for (const QdqStep& s : weights) {
    fits_qdq(s.q, s.spec);
    fits(s.dwq.size() == s.q.w.size() && s.wq.size() == s.q.w.size() && s.wq.dtype == s.q.w.dtype, "qdq_step");
  }
  for (size_t first = 0, last; first < weights.size(); first = last) {
    const QdqStep& s = weights[first];
    last = first + 1;
    if (s.spec.two_levels()) {
      qdq_step_two_levels(s, rates, faults_, stream_);
      continue;
    }
    while (last < weights.size() && last - first < kMostItems && same_kernel(weights[last], s)) ++last;
    step_side_by_side(weights.subspan(first, last - first), rates, faults_, stream_);
  }
}

void CudaBackend::search_factors(const QdqTensors& q, Tensor h, const QuantSpec& spec) {
  fits_qdq(q, spec);
  fits(h.size() == q.w.cols() && !spec.two_levels(), "search_factors");
  const Matrix m = matrix_of(q.w, spec);
  with_weights(q.w, spec, {h.data}, [&](const auto* w, auto whole) {
    search_kernel<whole><<<blocks_for(m.groups * kTeam), kBlock, 0, stream_>>>(q.lo.as<float>(), q.hi.as<float>(), w,
                                                                               h.as<float>(), q.wmin.as<float>(),
                                                                               q.wmax.as<float>(), m, spec);
  });
  launched("search_factors");
}

void CudaBackend::column_squares(Tensor h, Tensor x) {
  fits(h.size() == x.cols() && x.rows() > 0, "column_squares");
  const unsigned blocks = static_cast<unsigned>(divide_up(x.cols(), kWarp));
  with_activation([&]<class T>(T) {
    squares_kernel<<<blocks, kSlices * kWarp, 0, stream_>>>(h.as<float>(), x.as<T>(), x.rows(), x.cols());
  });
  launched("column_squares");
}

void CudaBackend::qdq_codes(const GridTensors& grid, const QdqTensors& q, const QuantSpec& spec) {
  fits_qdq(q, spec);
  fits(fits_grid(grid, q.w, spec), "qdq_codes");
  if (spec.two_levels()) return qdq_codes_two_levels(grid, q, spec, stream_);
  const Matrix m = matrix_of(q.w, spec);
  with_weights(q.w, spec, {grid.codes.data, q.v.data}, [&](const auto* w, auto whole) {
    codes_kernel<whole><<<blocks_for(m.groups * kTeam), kBlock, 0, stream_>>>(static_cast<u8*>(grid.codes.data),
                                                                              grid.scale.as<half>(),
                                                                              static_cast<u8*>(grid.zero.data), w,
                                                                              q.v.as<float>(), ranges_of(q), m, spec);
  });
  launched("qdq_codes");
}

}  // namespace signround::cuda
