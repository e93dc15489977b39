// What the quantizers of one level and of two share on the GPU: a team of threads a group, thread t with lanes 4t .. 4t+3 of
// those that the CPU's sums run in, so that sums are the same to the bit. Thirty-two lanes; for up to 32 weights sixteen do.
#pragma once
#include "cuda/common.cuh"
#include "ops/ops.h"
#include "ops/qdq_super.h"

namespace signround::cuda {

inline constexpr int kHeld = 4;  // lanes of a thread: neighbours

// Four neighbours, or the `left` of them that the group still has. whole: every group begins at and has a multiple of four.
template <bool whole, class T>
__device__ inline Pack<T, kHeld> load_some(const T* p, i64 left) {
  if constexpr (whole) {
    return load<kHeld>(p);
  } else {
    Pack<T, kHeld> pack{};
    for (int j = 0; j < kHeld; ++j)
      if (j < left) pack.x[j] = p[j];
    return pack;
  }
}
template <bool whole, class T>
__device__ inline void store_some(T* p, i64 left, const Pack<T, kHeld>& pack) {
  if constexpr (whole) {
    store<kHeld>(p, pack);
  } else {
    for (int j = 0; j < kHeld; ++j)
      if (j < left) p[j] = pack.x[j];
  }
}

// Ratios to a scale s of one level, rounded as a division rounds them, by multiplications alone: they have no branches, which
// would keep a thread from working on several weights at a time. With y = 1/s rounded and q = wy rounded,  q + (w - qs) y  misses
// w/s by less than 2^-23 units of the last place; s has been f16, so w/s is 2^-12 of them away from where rounding turns, at
// least. A weight so small that w - qs has not all its bits is divided.
struct Divisor {
  static constexpr float kLeast = 0x1p-90f;
  float s, y;
  Divisor() = default;
  __device__ explicit Divisor(float s) : s(s), y(1 / s) {}
  template <int n>
  __device__ void divide(float (&w)[n]) const {
    float ratio[n];
    bool small = false;
#pragma unroll
    for (int j = 0; j < n; ++j) {
      const float q = w[j] * y;
      ratio[j] = __fmaf_rn(__fmaf_rn(-q, s, w[j]), y, q);
      small |= fabsf(w[j]) < kLeast && w[j] != 0;
    }
#pragma unroll
    for (int j = 0; j < n; ++j) w[j] = small ? w[j] / s : ratio[j];
  }
};

struct Ranges {
  const float *wmin, *wmax, *lo, *hi;
  __device__ Range<float> of(i64 group) const { return {wmin[group], wmax[group], lo[group], hi[group]}; }
};

// Sum of the lanes of a team, as the tree that lanes_total() of ops/cpu/lanes.h is: in the team's first thread.
template <int team>
__device__ inline float team_total(float (&lanes)[kHeld]) {
#pragma unroll
  for (int step = team / 2; step > 0; step /= 2)
#pragma unroll
    for (int j = 0; j < kHeld; ++j) lanes[j] += __shfl_down_sync(~0u, lanes[j], step, team);
#pragma unroll
  for (int width = kHeld / 2; width > 0; width /= 2)
#pragma unroll
    for (int j = 0; j < width; ++j) lanes[j] += lanes[j + width];
  return lanes[0];
}

struct Rates {
  const float *lr, *minmax_lr;  // [steps]
  const Counters* now;
  i64 steps;
};

// Whether groups and rows are multiples of four and all pointers to weights allow wide accesses.
inline bool are_whole(Tensor w, const QuantSpec& spec, std::initializer_list<const void*> pointers) {
  const bool fours = w.cols() % kHeld == 0 && spec.group_of(w.cols()) % kHeld == 0;
  return fours && aligned_to(16, {w.data}) && aligned_to(16, pointers);
}
// f(typed w, whole)
template <class F>
void with_weights(Tensor w, const QuantSpec& spec, std::initializer_list<const void*> pointers, F f) {
  const bool whole = are_whole(w, spec, pointers);
  with_type(w, [&](const auto* typed) {
    if (whole) f(typed, std::true_type{});
    else f(typed, std::false_type{});
  });
}

inline Ranges ranges_of(const QdqTensors& q) {
  return {q.wmin.as<float>(), q.wmax.as<float>(), q.lo.as<float>(), q.hi.as<float>()};
}

// Scales of two levels: qdq_super.cu. The shapes have been checked.
void qdq_two_levels(Tensor wq, const QdqTensors& q, const QuantSpec& spec, cudaStream_t stream);
void qdq_step_two_levels(const QdqStep& step, const Rates& rates, Faults* faults, cudaStream_t stream);
void qdq_codes_two_levels(const GridTensors& grid, const QdqTensors& q, const QuantSpec& spec, cudaStream_t stream);

}  // namespace signround::cuda
