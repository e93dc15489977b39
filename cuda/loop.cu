// The tuning loop's own steps: what the device does without asking the host. State: see TuningState.
#include "cuda/backend.h"
#include "cuda/micro_batch.cuh"

namespace signround::cuda {
namespace {

// to[i] = f(from[i]) for V elements at a time, by all threads of the grid's first dimension; several reads are under way at once.
template <int V, class To, class From>
__device__ inline void move(To* __restrict__ to, const From* __restrict__ from, i64 n) {
  constexpr int kDepth = 4;
  const i64 step = static_cast<i64>(gridDim.x) * blockDim.x * V;
  for (i64 first = global_thread() * V; first < n; first += kDepth * step) {
    Pack<From, V> in[kDepth];
#pragma unroll
    for (int k = 0; k < kDepth; ++k)
      if (first + k * step < n) in[k] = load<V>(from + first + k * step);
#pragma unroll
    for (int k = 0; k < kDepth; ++k)
      if (first + k * step < n) {
        Pack<To, V> out;
#pragma unroll
        for (int v = 0; v < V; ++v) {
          if constexpr (std::is_same_v<To, From>) out.x[v] = in[k].x[v];
          else out.x[v] = narrowed<To>(widened(in[k].x[v]));
        }
        store<V>(to + first + k * step, out);
      }
  }
}

// y[b] = cache[order[micro * B + b]], a sample being `size` elements; b is the grid's second dimension.
template <int V, class T, class C>
__global__ void gather_kernel(T* y, const C* cache, i64 size, MicroBatch inputs, Faults* faults) {
  const i64 sample = inputs.sample(blockIdx.y, faults);
  if (sample >= 0) move<V>(y + blockIdx.y * size, cache + sample * size, size);
}

template <int V>
__global__ void keep_kernel(u8* to, const u8* from, i64 bytes, const Counters* now) {
  if (now->is_best != 0) move<V>(to, from, bytes);
}

}  // namespace

void CudaBackend::gather(Tensor y, Tensor cache, i64 tokens, const TuningState& state) {
  fits(tokens > 0 && y.cols() == cache.cols() && y.rows() % tokens == 0 && y.rows() > 0, "gather");
  const i64 batch = y.rows() / tokens, size = tokens * y.cols();
  const MicroBatch inputs(state, batch, cache.rows() / tokens);
  with_activation([&]<class T>(T) {
    with_type(cache, [&]<class C>(const C* from) {
      using Narrow = std::conditional_t<sizeof(T) < sizeof(C), T, C>;
      with_width<Narrow>(size, {y.data, from}, [&](auto V) {
        const dim3 grid(blocks_for(divide_up(size, V)), static_cast<unsigned>(batch));
        gather_kernel<V><<<grid, kBlock, 0, stream_>>>(y.as<T>(), from, size, inputs, faults_);
      });
    });
  });
  launched("gather");
}

void CudaBackend::keep_if_best(Tensor dst, Tensor src, const TuningState& state) {
  fits(dst.size() == src.size() && dst.dtype == src.dtype, "keep_if_best");
  const i64 bytes = src.bytes();
  if (bytes == 0) return;
  constexpr unsigned kBlocks = 2048;  // enough to fill a GPU, few enough to cost nothing where there is nothing to keep
  const auto *from = static_cast<const u8*>(src.data);
  auto *to = static_cast<u8*>(dst.data);
  with_width<u8>(bytes, {to, from}, [&](auto V) {
    const unsigned blocks = std::min(kBlocks, blocks_for(divide_up(bytes, V)));
    keep_kernel<V><<<blocks, kBlock, 0, stream_>>>(to, from, bytes, state.now());
  });
  launched("keep_if_best");
}

}  // namespace signround::cuda
