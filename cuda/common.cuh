// What every kernel file needs: checked calls, the element types of the device, wide accesses, sums in a fixed order.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <string_view>
#include <type_traits>

#include "base/tensor.h"

namespace signround {

template <> inline constexpr DType dtype_of<__nv_bfloat16> = DType::bf16;
template <> inline constexpr DType dtype_of<__half> = DType::f16;

namespace cuda {

using bfloat = __nv_bfloat16;
using half = __half;

// Any CUDA failure but a lack of memory is a bug of this program; those of kernels show up at the next call that waits.
inline void cuda_check(cudaError_t status, std::string_view what) {
  if (status == cudaSuccess) [[likely]] return;
  cudaGetLastError();  // it was seen: the next call starts clean
  fail(status == cudaErrorMemoryAllocation ? ErrorKind::out_of_memory : ErrorKind::bug, what, ": ", cudaGetErrorString(status));
}
inline void launched(std::string_view kernel) { cuda_check(cudaGetLastError(), kernel); }

inline constexpr int kWarp = 32, kBlock = 256;  // threads; a block of eight warps unless a kernel says otherwise

inline i64 divide_up(i64 a, i64 b) { return (a + b - 1) / b; }
inline unsigned blocks_for(i64 threads) { return static_cast<unsigned>(divide_up(threads, kBlock)); }

__device__ inline i64 global_thread() { return static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x; }
__device__ inline i64 global_warp() { return global_thread() / kWarp; }
__device__ inline int lane() { return static_cast<int>(threadIdx.x % kWarp); }

// ---- elements: stored as float, half or bfloat, computed with as float.
__device__ inline float widened(float x) { return x; }
__device__ inline float widened(half x) { return __half2float(x); }
__device__ inline float widened(bfloat x) { return __bfloat162float(x); }
template <class T>
__device__ inline T narrowed(float x) {
  if constexpr (std::is_same_v<T, half>) return __float2half_rn(x);
  else if constexpr (std::is_same_v<T, bfloat>) return __float2bfloat16_rn(x);
  else return x;
}

// ---- V neighbouring elements, read and written 16 bytes at a time where V elements have so many.
template <class T, int V>
struct alignas(sizeof(T) * V < 16 ? sizeof(T) * V : 16) Pack {
  T x[V];
};
template <int V, class T>
__device__ inline Pack<T, V> load(const T* p) { return *reinterpret_cast<const Pack<T, V>*>(p); }
template <int V, class T>
__device__ inline void store(T* p, const Pack<T, V>& pack) { *reinterpret_cast<Pack<T, V>*>(p) = pack; }

// p[v] = f(v) or p[v] += f(v), v = 0..V-1
template <int V, class T, class F>
__device__ inline void accumulate(T* p, bool add, F f) {
  Pack<T, V> out;
  if (add) out = load<V>(p);
#pragma unroll
  for (int v = 0; v < V; ++v) out.x[v] = narrowed<T>(add ? widened(out.x[v]) + f(v) : f(v));
  store<V>(p, out);
}

inline bool aligned_to(std::uintptr_t bytes, std::initializer_list<const void*> pointers) {
  return std::all_of(pointers.begin(), pointers.end(),
                     [&](const void* p) { return reinterpret_cast<std::uintptr_t>(p) % bytes == 0; });
}
// f(V): elements of T that a thread takes at a time: 16 bytes of them if that divides n and the pointers allow it, else one. A
// null pointer fits everywhere.
template <class T, class F>
void with_width(i64 n, std::initializer_list<const void*> pointers, F f) {
  constexpr int V = 16 / sizeof(T);
  if (n % V == 0 && aligned_to(16, pointers)) f(std::integral_constant<int, V>{});
  else f(std::integral_constant<int, 1>{});
}

// f(typed pointer) for a tensor of float, half or bfloat.
template <class F>
void with_type(Tensor t, F&& f) {
  switch (t.dtype) {
    case DType::f32: return f(static_cast<float*>(t.data));
    case DType::f16: return f(static_cast<half*>(t.data));
    case DType::bf16: return f(static_cast<bfloat*>(t.data));
    default: fail(ErrorKind::bug, "no kernel for elements of type ", name_of(t.dtype));
  }
}

// A wrong shape is a bug of the caller.
inline void fits(bool ok, std::string_view op) { check(ok, ErrorKind::bug, op, ": the shapes of the tensors do not fit"); }

// ---- sums and maxima, the same bits in every thread. team: the neighbours that add up, all of the warp or a part of it.
template <int team = kWarp, class T>
__device__ inline T warp_sum(T x) {
#pragma unroll
  for (int step = team / 2; step > 0; step /= 2) x += __shfl_xor_sync(~0u, x, step);
  return x;
}
__device__ inline float warp_max(float x) {
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(~0u, x, step));
  return x;
}
// Of a whole block of kBlock threads.
template <class T, class Reduce>
__device__ inline T block_reduce(T x, T neutral, Reduce reduce) {
  __shared__ T part[kBlock / kWarp];
  x = reduce(x);
  __syncthreads();  // who still reads the part of an earlier call
  if (lane() == 0) part[threadIdx.x / kWarp] = x;
  __syncthreads();
  return reduce(lane() < kBlock / kWarp ? part[lane()] : neutral);
}
template <class T>
__device__ inline T block_sum(T x) {
  return block_reduce(x, T(0), [](T y) { return warp_sum(y); });
}
__device__ inline float block_max(float x) {
  return block_reduce(x, -INFINITY, [](float y) { return warp_max(y); });
}

// ---- what a kernel finds wrong in its input: it goes on without touching anything, and the host throws when it next waits.
// One word a kind, the lowest (position, value) found: the same on every run.
enum class Fault : int { token, target, sample, step, count };
using Faults = unsigned long long;  // [Fault::count], ~0: none
__device__ inline void report(Faults* faults, Fault kind, i64 position, i32 value) {
  atomicMin(&faults[static_cast<int>(kind)], static_cast<Faults>(position) << 32 | static_cast<u32>(value));
}

}  // namespace cuda
}  // namespace signround
