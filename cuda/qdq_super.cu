// Quantize-dequantize with scales of two levels (ops/qdq_super.h), and its backward fused with the sign step: the CPU's results
// to the bit, hence compiled without fused multiply-adds.
//
// A warp a super-block: eight weights a thread in two packs of four, four threads a group of 32, or two groups of 16, k and
// k + 8. What the groups share is found by a butterfly over the warp's eight quads, which adds in the order of the CPU's tree.
// Bytes a weight: as with one level.
#include "cuda/qdq.cuh"

namespace signround::cuda {
namespace {

constexpr int kQuad = 4, kLanes = kQuad * kHeld;  // threads of a group, and the lanes that they have
constexpr int kPacks = 2, kQuads = kWarp / kQuad;

// The super-block of this warp; a thread has `per` of its groups.
template <int per>
struct Place {
  i64 super = global_warp();
  int quad = lane() / kQuad, quarter = lane() % kQuad;

  __device__ int local(int j) const { return quad + kQuads * j; }
  __device__ i64 group(int j) const { return super * (kQuads * per) + local(j); }
  // The first weight of a pack: packs of one group lie sixteen apart.
  __device__ i64 at(int pack) const {
    return super * kSuperBlock + (per == 1 ? quad * 32 + pack * kLanes : local(pack) * kLanes) + quarter * kHeld;
  }
  __device__ static int owner(int pack) { return per == 1 ? 0 : pack; }
};

// Over the quads of the warp, each of which has the same value in all its threads.
__device__ float quads_sum(float x) {
#pragma unroll
  for (int step = kWarp / 2; step >= kQuad; step /= 2) x += __shfl_xor_sync(~0u, x, step);
  return x;
}
__device__ Pivot<float> quads_farthest(Pivot<float> x, bool symmetric) {
#pragma unroll
  for (int step = kWarp / 2; step >= kQuad; step /= 2)
    x = farther(x, Pivot<float>{__shfl_xor_sync(~0u, x.value, step), __shfl_xor_sync(~0u, x.group, step)}, symmetric);
  return x;
}

template <int per>
struct Grids {
  Range<float> range[per];
  Grid<float> grid[per];
  Step<float> d, e;
  Level<float> c[per], n[per];

  __device__ Grids(const Place<per>& place, const Ranges& ranges, const QuantSpec& spec) {
#pragma unroll
    for (int j = 0; j < per; ++j) range[j] = ranges.of(place.group(j));
    d = shared_step(place, spec, [&](int j) { return scale_of(range[j], spec); });
    if (!spec.symmetric) e = shared_step(place, spec, [&](int j) { return -range[j].mn(); });
#pragma unroll
    for (int j = 0; j < per; ++j) {
      c[j] = scale_level(scale_of(range[j], spec), d, spec);
      if (!spec.symmetric) n[j] = offset_level(-range[j].mn(), e);
      grid[j] = grid_of(c[j], d, spec.symmetric ? 0.0f : e.value * n[j].q, spec);
    }
  }

  // {dlo, dhi} of group j from the sums S and Z of the thread's groups.
  __device__ void backward(std::array<float, 2> (&out)[per], const float (&s)[per], const float (&z)[per],
                           const Place<per>& place, const QuantSpec& spec) const {
    float sum_d = 0, sum_e = 0;
#pragma unroll
    for (int j = 0; j < per; ++j) {
      sum_d += step_terms(s[j], c[j]).step;
      if (!spec.symmetric) sum_e += step_terms(-z[j], n[j]).step;
    }
    sum_d = quads_sum(sum_d), sum_e = quads_sum(sum_e);
#pragma unroll
    for (int j = 0; j < per; ++j) {
      const float ds = with_pivot(step_terms(s[j], c[j]).own, sum_d, d, place.local(j));
      const float offset = spec.symmetric ? 0.0f : with_pivot(step_terms(-z[j], n[j]).own, sum_e, e, place.local(j));
      out[j] = ends_bwd(range[j], ds, -offset, spec);
    }
  }

 private:
  template <class F>
  __device__ static Step<float> shared_step(const Place<per>& place, const QuantSpec& spec, F value) {
    Pivot<float> pivot{value(0), place.local(0)};
#pragma unroll
    for (int j = 1; j < per; ++j) pivot = farther(pivot, Pivot<float>{value(j), place.local(j)}, spec.symmetric);
    return step_of(quads_farthest(pivot, spec.symmetric), spec);
  }
};

template <int per, bool whole, class W>
__global__ void qdq_kernel(W* __restrict__ wq, const W* __restrict__ w, const float* __restrict__ v, Ranges ranges, i64 supers,
                           QuantSpec spec) {
  const Place<per> place;
  if (place.super >= supers) return;  // a warp as a whole
  const Grids<per> grids(place, ranges, spec);
#pragma unroll
  for (int p = 0; p < kPacks; ++p) {
    const Grid<float>& grid = grids.grid[place.owner(p)];
    const Pack<W, kHeld> in = load_some<whole>(w + place.at(p), kHeld);
    const Pack<float, kHeld> offset = load_some<whole>(v + place.at(p), kHeld);
    Pack<W, kHeld> out;
#pragma unroll
    for (int j = 0; j < kHeld; ++j) out.x[j] = narrowed<W>(value_of(level_of(widened(in.x[j]), offset.x[j], grid), grid));
    store_some<whole>(wq + place.at(p), kHeld, out);
  }
}

template <int per, bool whole, class W, class G>
__global__ void step_kernel(float* __restrict__ v, float* lo, float* hi, const W* __restrict__ w, const G* __restrict__ dwq,
                            const float* wmin, const float* wmax, i64 supers, QuantSpec spec, Rates rates, float most,
                            Faults* faults) {
  const i32 step = rates.now->step;
  if (step < 0 || step >= rates.steps) {
    if (global_thread() == 0) report(faults, Fault::step, rates.steps, step);
    return;
  }
  const float lr = rates.lr[step], minmax_lr = rates.minmax_lr[step];
  const Place<per> place;
  if (place.super >= supers) return;
  // All is read before anything is written: a group's packs lie in the same lines, and stores to v would hold the reads up.
  Pack<W, kHeld> in[kPacks];
  Pack<G, kHeld> gradient[kPacks];
  Pack<float, kHeld> offset[kPacks];
#pragma unroll
  for (int p = 0; p < kPacks; ++p) {
    in[p] = load_some<whole>(w + place.at(p), kHeld);
    gradient[p] = load_some<whole>(dwq + place.at(p), kHeld);
    offset[p] = load_some<whole>(v + place.at(p), kHeld);
  }
  const Grids<per> grids(place, Ranges{wmin, wmax, lo, hi}, spec);
  float sum_s[per][kHeld] = {}, sum_z[per][kHeld] = {};
#pragma unroll
  for (int p = 0; p < kPacks; ++p) {
    const int own = place.owner(p);
#pragma unroll
    for (int j = 0; j < kHeld; ++j) {
      const Level<float> level = level_of(widened(in[p].x[j]), offset[p].x[j], grids.grid[own]);
      const Terms<float> terms = terms_of(widened(gradient[p].x[j]), level, grids.grid[own]);
      sum_s[own][j] += terms.s;
      sum_z[own][j] += terms.z;
      offset[p].x[j] -= lr * sign(terms.dv);
    }
    store_some<whole>(v + place.at(p), kHeld, offset[p]);
  }
  float s[per], z[per];
#pragma unroll
  for (int j = 0; j < per; ++j) {
    s[j] = __shfl_sync(~0u, team_total<kQuad>(sum_s[j]), 0, kQuad);
    z[j] = __shfl_sync(~0u, team_total<kQuad>(sum_z[j]), 0, kQuad);
  }
  std::array<float, 2> d[per];
  grids.backward(d, s, z, place, spec);
  if (place.quarter != 0) return;
#pragma unroll
  for (int j = 0; j < per; ++j) {
    lo[place.group(j)] = held(grids.range[j].lo - minmax_lr * sign(d[j][0]), 0.0f, most);
    hi[place.group(j)] = held(grids.range[j].hi - minmax_lr * sign(d[j][1]), 0.0f, most);
  }
}

struct GridPointers {
  u8* codes;
  half* scale;
  u8* zero;
  i8* factor;
  half* offset;
};

template <int per, bool whole, class W>
__global__ void codes_kernel(GridPointers out, const W* w, const float* v, Ranges ranges, i64 supers, QuantSpec spec) {
  const Place<per> place;
  if (place.super >= supers) return;
  const Grids<per> grids(place, ranges, spec);
#pragma unroll
  for (int p = 0; p < kPacks; ++p) {
    const Grid<float>& grid = grids.grid[place.owner(p)];
    const Pack<W, kHeld> in = load_some<whole>(w + place.at(p), kHeld);
    const Pack<float, kHeld> offset = load_some<whole>(v + place.at(p), kHeld);
    Pack<u8, kHeld> codes;
#pragma unroll
    for (int j = 0; j < kHeld; ++j)
      codes.x[j] = static_cast<u8>(static_cast<int>(level_of(widened(in.x[j]), offset.x[j], grid).q + grid.zero));
    store_some<whole>(out.codes + place.at(p), kHeld, codes);
  }
  if (lane() == 0) {
    out.scale[place.super] = narrowed<half>(grids.d.value);
    if (!spec.symmetric) out.offset[place.super] = narrowed<half>(grids.e.value);
  }
  if (place.quarter != 0) return;
#pragma unroll
  for (int j = 0; j < per; ++j) {
    out.factor[place.group(j)] = static_cast<i8>(static_cast<int>(grids.c[j].q));
    out.zero[place.group(j)] = static_cast<u8>(static_cast<int>(spec.symmetric ? grids.grid[j].zero : grids.n[j].q));
  }
}

// f(super-blocks, launch's blocks, groups of a thread)
template <class F>
void with_supers(Tensor w, const QuantSpec& spec, F f) {
  const i64 supers = w.size() / kSuperBlock;
  if (spec.shared() == kQuads) f(supers, blocks_for(supers * kWarp), std::integral_constant<int, 1>{});
  else f(supers, blocks_for(supers * kWarp), std::integral_constant<int, 2>{});
}

}  // namespace

void qdq_two_levels(Tensor wq, const QdqTensors& q, const QuantSpec& spec, cudaStream_t stream) {
  with_supers(q.w, spec, [&](i64 supers, unsigned blocks, auto per) {
    with_weights(q.w, spec, {wq.data, q.v.data}, [&]<class W>(const W* w, auto whole) {
      qdq_kernel<per, whole><<<blocks, kBlock, 0, stream>>>(wq.as<W>(), w, q.v.as<float>(), ranges_of(q), supers, spec);
    });
  });
  launched("qdq");
}

void qdq_step_two_levels(const QdqStep& step, const Rates& rates, Faults* faults, cudaStream_t stream) {
  const auto& [wq, q, dwq, spec, most] = step;
  const auto run = [&](const auto* gradient) {
    with_supers(q.w, spec, [&](i64 supers, unsigned blocks, auto per) {
      with_weights(q.w, spec, {dwq.data, q.v.data}, [&](const auto* w, auto whole) {
        step_kernel<per, whole><<<blocks, kBlock, 0, stream>>>(q.v.as<float>(), q.lo.as<float>(), q.hi.as<float>(), w, gradient,
                                                               q.wmin.as<float>(), q.wmax.as<float>(), supers, spec, rates,
                                                               most, faults);
      });
    });
  };
  if (dwq.dtype == DType::bf16) run(dwq.as<bfloat>());
  else run(dwq.as<float>());
  launched("qdq_step");
  qdq_two_levels(wq, q, spec, stream);
}

void qdq_codes_two_levels(const GridTensors& grid, const QdqTensors& q, const QuantSpec& spec, cudaStream_t stream) {
  const GridPointers out{static_cast<u8*>(grid.codes.data), grid.scale.as<half>(), static_cast<u8*>(grid.zero.data),
                         static_cast<i8*>(grid.factor.data), static_cast<half*>(grid.offset.data)};
  with_supers(q.w, spec, [&](i64 supers, unsigned blocks, auto per) {
    with_weights(q.w, spec, {grid.codes.data, q.v.data}, [&](const auto* w, auto whole) {
      codes_kernel<per, whole><<<blocks, kBlock, 0, stream>>>(out, w, q.v.as<float>(), ranges_of(q), supers, spec);
    });
  });
  launched("qdq_codes");
}

}  // namespace signround::cuda
