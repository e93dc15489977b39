// Squared error, for tuning a block; next-token cross-entropy, for perplexity and for tuning the last one.
#include "cuda/backend.h"
#include "cuda/micro_batch.cuh"

namespace signround::cuda {
namespace {

// Part i of the sum: rows i*8 + warp, then every kLossParts*8-th one. A warp a row; a thread adds up its share of a row as
// float, rows as double. Several reads are under way at once: targets may come over a bus. dy may be y.
template <int V, class T>
__global__ void mse_kernel(T* dy, const T* y, const T* states, MicroBatch targets, double* parts, i64 rows, i64 cols,
                           u32 tokens, bool skip_last, Faults* faults) {
  constexpr int kDepth = 4;
  double sum = 0;
  for (i64 row = global_warp(); row < rows; row += static_cast<i64>(gridDim.x) * (kBlock / kWarp)) {
    const u32 b = static_cast<u32>(row) / tokens, token = static_cast<u32>(row) - b * tokens;
    const i64 sample = targets.sample(b, faults);
    const bool counts = sample >= 0 && !(skip_last && token == tokens - 1);
    T* d = dy + row * cols;
    const T *given = y + row * cols, *wanted = states + (sample * tokens + token) * cols;
    float squares = 0;
    for (i64 first = lane() * V; first < cols; first += kDepth * kWarp * V) {
      Pack<T, V> in[kDepth], target[kDepth];
#pragma unroll
      for (int k = 0; k < kDepth; ++k)
        if (const i64 i = first + k * kWarp * V; i < cols) {
          in[k] = load<V>(given + i);
          target[k] = counts ? load<V>(wanted + i) : in[k];
        }
#pragma unroll
      for (int k = 0; k < kDepth; ++k)
        if (const i64 i = first + k * kWarp * V; i < cols) {
          const auto error = [&](int v) { return widened(in[k].x[v]) - widened(target[k].x[v]); };
          accumulate<V>(d + i, false, [&](int v) { return counts ? 2 * error(v) : 0; });
#pragma unroll
          for (int v = 0; v < V; ++v) squares += counts ? error(v) * error(v) : 0;
        }
    }
    sum += squares;
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

// loss[step] += the sum of the parts, in their order's tree, over `count` elements; and the micro-batch is over. One block. The
// first of equal losses stays the best; NaN never is.
__global__ void add_loss_kernel(float* loss, float* best, const double* parts, int n, double count, Counters* now, i64 steps,
                                i64 accumulate, Faults* faults) {
  double sum = 0;
  for (int i = static_cast<int>(threadIdx.x); i < n; i += kBlock) sum += parts[i];
  sum = block_sum(sum);
  if (threadIdx.x != 0) return;
  const i32 step = now->step = static_cast<i32>(now->micro / accumulate);
  if (step < 0 || step >= steps) return report(faults, Fault::step, steps, step);
  if (count > 0) loss[step] += static_cast<float>(sum / count);
  ++now->micro;
  now->is_best = now->micro % accumulate == 0 && loss[step] < *best;
  if (now->is_best == 0) return;
  *best = loss[step];
  now->best_step = step;
}

// log(sum(exp(x))) of n values, by a whole block; its largest term apart, so that nothing overflows.
template <int V, class T>
__device__ float log_sum_exp(const T* x, i64 n) {
  float top = -INFINITY;
  for (i64 i = threadIdx.x * V; i < n; i += kBlock * V) {
    const Pack<T, V> in = load<V>(x + i);
#pragma unroll
    for (int v = 0; v < V; ++v) top = fmaxf(top, widened(in.x[v]));
  }
  top = block_max(top);
  float sum = 0;
  for (i64 i = threadIdx.x * V; i < n; i += kBlock * V) {
    const Pack<T, V> in = load<V>(x + i);
#pragma unroll
    for (int v = 0; v < V; ++v) sum += expf(widened(in.x[v]) - top);
  }
  return top + logf(block_sum(sum));
}

// A block a row.   nll[n] = logsumexp(logits[n]) - logits[n, target[n]];  0 where target < 0
template <int V, class T>
__global__ void cross_entropy_kernel(float* nll, const T* logits, const i32* target, i64 vocabulary, Faults* faults) {
  const i64 n = blockIdx.x;
  const T* x = logits + n * vocabulary;
  const i32 id = target[n];
  const bool counts = id >= 0 && id < vocabulary;
  const float lse = counts ? log_sum_exp<V>(x, vocabulary) : 0;
  if (threadIdx.x != 0) return;
  nll[n] = counts ? lse - widened(x[id]) : 0;
  if (id >= vocabulary) report(faults, Fault::target, n, id);
}

// dlogits = softmax(logits) - onehot(target).   dlogits may be logits.
template <int V, class T>
__global__ void cross_entropy_bwd_kernel(T* dlogits, const T* logits, const i32* target, i64 vocabulary, Faults* faults) {
  const i64 n = blockIdx.x;
  T* d = dlogits + n * vocabulary;
  const T* x = logits + n * vocabulary;
  const i32 id = target[n];
  const bool counts = id >= 0 && id < vocabulary;
  const float lse = counts ? log_sum_exp<V>(x, vocabulary) : 0;
  for (i64 i = threadIdx.x * V; i < vocabulary; i += kBlock * V) {
    const Pack<T, V> in = load<V>(x + i);
    accumulate<V>(d + i, false, [&](int v) {
      return counts ? expf(widened(in.x[v]) - lse) - (i + v == id ? 1.0f : 0.0f) : 0.0f;
    });
  }
  if (threadIdx.x == 0 && id >= vocabulary) report(faults, Fault::target, n, id);
}

}  // namespace

void CudaBackend::mse(Tensor dy, Tensor y, const Targets& targets, i64 tokens, bool skip_last, const TuningState& state) {
  fits(targets.fit(dy, y, tokens), "mse");
  const Tensor states = targets.states;
  const MicroBatch samples(state, y.rows() / tokens, states.rows() / tokens, targets.in_turn);
  const i64 rows = y.rows(), cols = y.cols(), counted = skip_last ? rows - rows / tokens : rows;
  const int parts = static_cast<int>(std::min<i64>(kLossParts, divide_up(rows, kBlock / kWarp)));
  with_activation([&]<class T>(T) {
    with_width<T>(cols, {dy.data, y.data, states.data}, [&](auto V) {
      mse_kernel<V><<<static_cast<unsigned>(parts), kBlock, 0, stream_>>>(
          dy.as<T>(), y.as<T>(), states.as<T>(), samples, loss_parts_, rows, cols, static_cast<u32>(tokens), skip_last, faults_);
    });
  });
  launched("mse");
  add_loss_kernel<<<1, kBlock, 0, stream_>>>(state.loss.as<float>(), state.best.as<float>(), loss_parts_, parts,
                                             static_cast<double>(counted * cols), state.now(), state.loss.size(),
                                             state.accumulate, faults_);
  launched("mse");
}

void CudaBackend::cross_entropy(Tensor nll, Tensor logits, Tensor target) {
  fits(nll.size() == logits.rows() && target.size() == logits.rows(), "cross_entropy");
  with_activation([&]<class T>(T) {
    with_width<T>(logits.cols(), {logits.data}, [&](auto V) {
      cross_entropy_kernel<V><<<static_cast<unsigned>(logits.rows()), kBlock, 0, stream_>>>(
          nll.as<float>(), logits.as<T>(), target.as<i32>(), logits.cols(), faults_);
    });
  });
  launched("cross_entropy");
}

void CudaBackend::cross_entropy_bwd(Tensor dlogits, Tensor logits, Tensor target) {
  fits(dlogits.size() == logits.size() && target.size() == logits.rows(), "cross_entropy_bwd");
  with_activation([&]<class T>(T) {
    with_width<T>(logits.cols(), {dlogits.data, logits.data}, [&](auto V) {
      cross_entropy_bwd_kernel<V><<<static_cast<unsigned>(logits.rows()), kBlock, 0, stream_>>>(
          dlogits.as<T>(), logits.as<T>(), target.as<i32>(), logits.cols(), faults_);
    });
  });
  launched("cross_entropy_bwd");
}

}  // namespace signround::cuda
