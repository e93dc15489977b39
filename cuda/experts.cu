// Mixture of experts: the choice, the way to the experts and back. Formulas and the layout of `order`: ops/ops.h. How many rows
// an expert has stays on the device; sums run in the order of the choices, so that the same run gives the same bits.
#include "cuda/backend.h"

namespace signround::cuda {
namespace {

__device__ inline float sigmoid(float x) { return 1 / (1 + expf(-x)); }

// A warp a row.   y[n] = sigmoid(g[n]) x[n]
template <class T>
__global__ void sigmoid_gate_kernel(T* y, const T* x, const T* g, i64 rows, i64 cols) {
  const i64 n = global_warp();
  if (n >= rows) return;
  const float s = sigmoid(widened(g[n]));
  for (i64 i = n * cols + lane(); i < (n + 1) * cols; i += kWarp) y[i] = narrowed<T>(s * widened(x[i]));
}

// dx = s dy,   dg = s (1 - s) (dy . x);   either may be null
template <class T>
__global__ void sigmoid_gate_bwd_kernel(T* dx, T* dg, bool add_x, bool add_g, const T* dy, const T* x, const T* g, i64 rows,
                                        i64 cols) {
  const i64 n = global_warp();
  if (n >= rows) return;
  const float s = sigmoid(widened(g[n]));
  float along = 0;
  for (i64 i = n * cols + lane(); i < (n + 1) * cols; i += kWarp) {
    along += widened(dy[i]) * widened(x[i]);
    if (dx != nullptr) accumulate<1>(dx + i, add_x, [&](int) { return s * widened(dy[i]); });
  }
  along = warp_sum(along);
  if (dg != nullptr && lane() == 0) accumulate<1>(dg + n, add_g, [&](int) { return s * (1 - s) * along; });
}

// exp(z[e] - the largest) over what the weights are shares of: the softmax's denominator.
template <class T>
__device__ float denominator(const T* z, const i32* chosen, i64 experts, i64 active, bool normalized) {
  const float top = widened(z[chosen[0]]);
  float sum = 0;
  for (i64 i = lane(); i < (normalized ? active : experts); i += kWarp) sum += expf(widened(z[normalized ? chosen[i] : i]) - top);
  return warp_sum(sum);
}

// A warp a token. The experts have an order, the larger logit first, of equal ones the first: each choice is the next in it.
template <class T>
__global__ void choose_kernel(T* weights, i32* expert, const T* z, i64 rows, int experts, int active, bool normalized) {
  const i64 n = global_warp();
  if (n >= rows) return;
  z += n * experts, expert += n * active;
  float last = INFINITY;
  int last_expert = -1;
  for (int j = 0; j < active; ++j) {
    float best = -INFINITY;
    int best_expert = experts;  // none
    for (int e = lane(); e < experts; e += kWarp) {
      const float x = widened(z[e]);
      const bool later = x < last || (x == last && e > last_expert);
      if (later && (best_expert == experts || x > best)) best = x, best_expert = e;
    }
#pragma unroll
    for (int step = kWarp / 2; step > 0; step /= 2) {
      const float x = __shfl_xor_sync(~0u, best, step);
      const int e = __shfl_xor_sync(~0u, best_expert, step);
      if (e < experts && (best_expert == experts || x > best || (x == best && e < best_expert))) best = x, best_expert = e;
    }
    if (best_expert == experts) best_expert = j;  // NaN has no place in the order
    if (lane() == 0) expert[j] = best_expert;
    last = best, last_expert = best_expert;
  }
  __syncwarp();
  const float sum = denominator(z, expert, experts, active, normalized), top = widened(z[expert[0]]);
  for (int j = lane(); j < active; j += kWarp) weights[n * active + j] = narrowed<T>(expf(widened(z[expert[j]]) - top) / sum);
}

template <class T>
__global__ void route_bwd_kernel(T* dz, bool add, const T* dweights, const T* z, const T* weights, const i32* expert, i64 rows,
                                 int experts, int active, bool normalized) {
  const i64 n = global_warp();
  if (n >= rows) return;
  dz += n * experts, z += n * experts, dweights += n * active, weights += n * active, expert += n * active;
  float t = 0;
  for (int j = lane(); j < active; j += kWarp) t += widened(weights[j]) * widened(dweights[j]);
  t = warp_sum(t);
  const float sum = denominator(z, expert, experts, active, normalized), top = widened(z[expert[0]]);
  for (int e = lane(); e < experts; e += kWarp) {
    float d = normalized ? 0 : -expf(widened(z[e]) - top) / sum * t;
    for (int j = 0; j < active; ++j)
      if (expert[j] == e) d += widened(weights[j]) * (widened(dweights[j]) - (normalized ? t : 0));
    accumulate<1>(dz + e, add, [&](int) { return d; });
  }
}

// ---- sorting by counting: a block an expert, which reads all choices in stretches and knows of each how many of its own are
// before it.
constexpr int kSortBlock = 1024, kOwn = 4, kStretch = kSortBlock * kOwn;

// Over the block, of its `own` values a thread: what is before this thread's; total: of all.
__device__ inline int before(int own, int* total) {
  __shared__ int part[kSortBlock / kWarp];
  int sum = own;
#pragma unroll
  for (int step = 1; step < kWarp; step *= 2) {
    const int left = __shfl_up_sync(~0u, sum, step);
    if (lane() >= step) sum += left;
  }
  __syncthreads();  // who still reads the parts of an earlier call
  if (lane() == kWarp - 1) part[threadIdx.x / kWarp] = sum;
  __syncthreads();
  int earlier = 0, all = 0;
  for (int w = 0; w < kSortBlock / kWarp; ++w) {
    if (w == static_cast<int>(threadIdx.x) / kWarp) earlier = all;
    all += part[w];
  }
  *total = all;
  return earlier + sum - own;
}

__global__ void __launch_bounds__(kSortBlock) count_kernel(i32* bounds, i32* seen, const i32* expert, int choices) {
  const int e = static_cast<int>(blockIdx.x);
  int own = 0, total = 0;
  for (int c = static_cast<int>(threadIdx.x); c < choices; c += kSortBlock) own += expert[c] == e;
  before(own, &total);
  if (threadIdx.x != 0) return;
  bounds[e + 1] = total;
  seen[e] = static_cast<i32>(static_cast<u32>(seen[e]) + static_cast<u32>(total));
}

// bounds[e+1] = counts[0] + .. + counts[e], by one block.
__global__ void __launch_bounds__(kSortBlock) bounds_kernel(i32* bounds, int experts) {
  int done = 0;
  for (int first = 0; first < experts; first += kSortBlock) {
    const int e = first + static_cast<int>(threadIdx.x), own = e < experts ? bounds[e + 1] : 0;
    int total = 0;
    const int earlier = before(own, &total);
    if (e < experts) bounds[e + 1] = done + earlier + own;
    done += total;
  }
  if (threadIdx.x == 0) bounds[0] = 0;
}

__global__ void __launch_bounds__(kSortBlock) place_kernel(i32* order, const i32* bounds, int choices) {
  const i32* expert = order;
  i32 *row = order + choices, *choice = row + choices;
  const int e = static_cast<int>(blockIdx.x);
  int next = bounds[e];
  for (int first = 0; first < choices; first += kStretch) {
    const int mine = first + static_cast<int>(threadIdx.x) * kOwn;
    int own = 0, total = 0;
    for (int c = mine; c < mine + kOwn; ++c) own += c < choices && expert[c] == e;
    int at = next + before(own, &total);
    for (int c = mine; c < mine + kOwn; ++c)
      if (c < choices && expert[c] == e) row[c] = at, choice[at] = c, ++at;
    next += total;
  }
}

// ---- there and back, a warp a row.
template <int V, class T>
__global__ void dispatch_kernel(T* y, const T* x, const i32* order, i64 choices, int active, i64 cols) {
  const i64 row = global_warp();
  if (row >= choices) return;
  const T* from = x + static_cast<i64>(order[2 * choices + row] / active) * cols;
  for (i64 i = lane() * V; i < cols; i += kWarp * V) store<V>(y + row * cols + i, load<V>(from + i));
}

// y[n] (=|+=) sum_j weights[n,j] x[row of (n,j)];  weights null: all 1
template <int V, class T>
__global__ void combine_kernel(T* y, bool add, const T* x, const T* weights, const i32* order, i64 rows, int active, i64 cols) {
  const i64 n = global_warp();
  if (n >= rows) return;
  const i32* row = order + (rows + n) * active;
  for (i64 i = lane() * V; i < cols; i += kWarp * V) {
    float sum[V] = {};
    for (int j = 0; j < active; ++j) {
      const Pack<T, V> in = load<V>(x + row[j] * cols + i);
      const float w = weights != nullptr ? widened(weights[n * active + j]) : 1;
#pragma unroll
      for (int v = 0; v < V; ++v) sum[v] += w * widened(in.x[v]);
    }
    accumulate<V>(y + n * cols + i, add, [&](int v) { return sum[v]; });
  }
}

// dx[row of c] = weights[c] dy[c / k],   dweights[c] = dy[c / k] . x[row of c];   either may be null
template <int V, class T>
__global__ void combine_bwd_kernel(T* dx, T* dweights, bool add_x, bool add_weights, const T* dy, const T* x, const T* weights,
                                   const i32* order, i64 choices, int active, i64 cols) {
  const i64 c = global_warp();
  if (c >= choices) return;
  const i64 row = order[choices + c] * cols, token = c / active * cols;
  const float w = widened(weights[c]);
  float along = 0;
  for (i64 i = lane() * V; i < cols; i += kWarp * V) {
    const Pack<T, V> back = load<V>(dy + token + i), in = load<V>(x + row + i);
#pragma unroll
    for (int v = 0; v < V; ++v) along += widened(back.x[v]) * widened(in.x[v]);
    if (dx != nullptr) accumulate<V>(dx + row + i, add_x, [&](int v) { return w * widened(back.x[v]); });
  }
  along = warp_sum(along);
  if (dweights != nullptr && lane() == 0) accumulate<1>(dweights + c, add_weights, [&](int) { return along; });
}

void fits_order(Tensor weights, Tensor order, std::string_view op) {
  fits(weights.cols() > 0 && order.size() == 3 * weights.size() && order.size() < i64{1} << 31, op);
}

}  // namespace

void CudaBackend::sigmoid_gate(Tensor y, Tensor x, Tensor g) {
  fits(y.size() == x.size() && g.size() == x.rows(), "sigmoid_gate");
  with_activation([&]<class T>(T) {
    sigmoid_gate_kernel<<<blocks_for(x.rows() * kWarp), kBlock, 0, stream_>>>(y.as<T>(), x.as<T>(), g.as<T>(), x.rows(),
                                                                              x.cols());
  });
  launched("sigmoid_gate");
}

void CudaBackend::sigmoid_gate_bwd(Tensor dx, Tensor dg, Acc acc_x, Acc acc_g, Tensor dy, Tensor x, Tensor g) {
  fits(dy.size() == x.size() && g.size() == x.rows() && (!dx || dx.size() == x.size()) && (!dg || dg.size() == g.size()),
       "sigmoid_gate_bwd");
  with_activation([&]<class T>(T) {
    sigmoid_gate_bwd_kernel<<<blocks_for(x.rows() * kWarp), kBlock, 0, stream_>>>(
        wanted<T>(dx), wanted<T>(dg), acc_x == Acc::add, acc_g == Acc::add, dy.as<T>(), x.as<T>(), g.as<T>(), x.rows(), x.cols());
  });
  launched("sigmoid_gate_bwd");
}

void CudaBackend::route(Tensor weights, Tensor order, Tensor bounds, Tensor seen, Tensor z, bool normalized) {
  fits_order(weights, order, "route");
  fits(z.rows() == weights.rows() && z.cols() >= weights.cols() && bounds.size() == z.cols() + 1 && seen.size() == z.cols(),
       "route");
  const int experts = static_cast<int>(z.cols()), active = static_cast<int>(weights.cols());
  const int choices = static_cast<int>(weights.size());
  with_activation([&]<class T>(T) {
    choose_kernel<<<blocks_for(z.rows() * kWarp), kBlock, 0, stream_>>>(weights.as<T>(), order.as<i32>(), z.as<T>(), z.rows(),
                                                                        experts, active, normalized);
  });
  count_kernel<<<experts, kSortBlock, 0, stream_>>>(bounds.as<i32>(), seen.as<i32>(), order.as<i32>(), choices);
  bounds_kernel<<<1, kSortBlock, 0, stream_>>>(bounds.as<i32>(), experts);
  place_kernel<<<experts, kSortBlock, 0, stream_>>>(order.as<i32>(), bounds.as<i32>(), choices);
  launched("route");
}

void CudaBackend::route_bwd(Tensor dz, Acc acc, Tensor dweights, Tensor z, Tensor weights, Tensor order, bool normalized) {
  if (!dz) return;
  fits_order(weights, order, "route_bwd");
  fits(dz.size() == z.size() && z.rows() == weights.rows() && dweights.size() == weights.size(), "route_bwd");
  with_activation([&]<class T>(T) {
    route_bwd_kernel<<<blocks_for(z.rows() * kWarp), kBlock, 0, stream_>>>(
        dz.as<T>(), acc == Acc::add, dweights.as<T>(), z.as<T>(), weights.as<T>(), order.as<i32>(), z.rows(),
        static_cast<int>(z.cols()), static_cast<int>(weights.cols()), normalized);
  });
  launched("route_bwd");
}

void CudaBackend::dispatch(Tensor y, Tensor x, Tensor order) {
  fits(order.size() == 3 * y.rows() && y.cols() == x.cols() && x.rows() > 0 && y.rows() % x.rows() == 0, "dispatch");
  with_activation([&]<class T>(T) {
    with_width<T>(x.cols(), {y.data, x.data}, [&](auto V) {
      dispatch_kernel<V><<<blocks_for(y.rows() * kWarp), kBlock, 0, stream_>>>(
          y.as<T>(), x.as<T>(), order.as<i32>(), y.rows(), static_cast<int>(y.rows() / x.rows()), x.cols());
    });
  });
  launched("dispatch");
}

void CudaBackend::dispatch_bwd(Tensor dx, Acc acc, Tensor dy, Tensor order) {
  if (!dx) return;
  fits(order.size() == 3 * dy.rows() && dy.cols() == dx.cols() && dx.rows() > 0 && dy.rows() % dx.rows() == 0, "dispatch_bwd");
  with_activation([&]<class T>(T) {
    with_width<T>(dx.cols(), {dx.data, dy.data}, [&](auto V) {
      combine_kernel<V><<<blocks_for(dx.rows() * kWarp), kBlock, 0, stream_>>>(
          dx.as<T>(), acc == Acc::add, dy.as<T>(), static_cast<const T*>(nullptr), order.as<i32>(), dx.rows(),
          static_cast<int>(dy.rows() / dx.rows()), dx.cols());
    });
  });
  launched("dispatch_bwd");
}

void CudaBackend::combine(Tensor y, Tensor x, Tensor weights, Tensor order) {
  fits_order(weights, order, "combine");
  fits(x.rows() == weights.size() && y.rows() == weights.rows() && x.cols() == y.cols(), "combine");
  with_activation([&]<class T>(T) {
    with_width<T>(y.cols(), {y.data, x.data}, [&](auto V) {
      combine_kernel<V><<<blocks_for(y.rows() * kWarp), kBlock, 0, stream_>>>(y.as<T>(), false, x.as<T>(),
                                                                              static_cast<const T*>(weights.as<T>()),
                                                                              order.as<i32>(), y.rows(),
                                                                              static_cast<int>(weights.cols()), y.cols());
    });
  });
  launched("combine");
}

void CudaBackend::combine_bwd(Tensor dx, Tensor dweights, Acc acc_x, Acc acc_weights, Tensor dy, Tensor x, Tensor weights,
                              Tensor order) {
  fits_order(weights, order, "combine_bwd");
  fits(x.rows() == weights.size() && dy.rows() == weights.rows() && x.cols() == dy.cols() && (!dx || dx.size() == x.size()) &&
           (!dweights || dweights.size() == weights.size()), "combine_bwd");
  with_activation([&]<class T>(T) {
    with_width<T>(x.cols(), {dx.data, dy.data, x.data}, [&](auto V) {
      combine_bwd_kernel<V><<<blocks_for(x.rows() * kWarp), kBlock, 0, stream_>>>(
          wanted<T>(dx), wanted<T>(dweights), acc_x == Acc::add, acc_weights == Acc::add, dy.as<T>(), x.as<T>(), weights.as<T>(),
          order.as<i32>(), x.rows(), static_cast<int>(weights.cols()), x.cols());
    });
  });
  launched("combine_bwd");
}

}  // namespace signround::cuda
