// Attention backward in tiles, after FlashAttention-2 (Dao 2023), without atomics: every sum has one owner and one order.
//   delta = rowsum(do o o),   p = exp(x - lse),   ds = p o (do v^T - delta) (o 1 - (x / cap)^2 if capped)
//   dv = p^T do,   dk = scale * ds^T q     a block owns a tile of keys and walks over the queries that see it
//   dq = scale * ds k                      a block owns a tile of queries and walks over the keys that it sees
// Either way owners are rows of the tile of scores (transposed in the first case), so that what a warp computed is the left
// factor of its next product as it is. A step's tiles arrive while those of the step before are multiplied.
#include "cuda/attention_tiles.cuh"
#include "cuda/hopper_attention.h"

namespace signround::cuda {
namespace {

// A team of threads a row of a head.
template <int V, int team, class T>
__global__ void delta_kernel(float* delta, const T* dout, const T* o, int d, i64 rows) {
  const i64 row = global_thread() / team;
  const int member = static_cast<int>(threadIdx.x) % team;
  float sum = 0;
  for (int c = member * V; c < d && row < rows; c += team * V) {
    const Pack<T, V> a = load<V>(dout + row * d + c), b = load<V>(o + row * d + c);
#pragma unroll
    for (int v = 0; v < V; ++v) sum += widened(a.x[v]) * widened(b.x[v]);
  }
  sum = warp_sum<team>(sum);
  if (row < rows && member == 0) delta[row] = sum;
}

template <class T>
void compute_delta(cudaStream_t stream, float* delta, const T* dout, const T* o, const AttentionShape& s) {
  const i64 rows = s.batch * s.tokens * s.heads;
  with_width<T>(s.head_dim, {dout, o}, [&](auto V) {
    const auto run = [&](auto team) {
      delta_kernel<V(), team()>
          <<<blocks_for(rows * team), kBlock, 0, stream>>>(delta, dout, o, static_cast<int>(s.head_dim), rows);
    };
    if (s.head_dim <= 8 * V) run(std::integral_constant<int, 8>{});
    else if (s.head_dim <= 16 * V) run(std::integral_constant<int, 16>{});
    else run(std::integral_constant<int, kWarp>{});
  });
}

// Scores s and products dp = do v^T -> p and ds. lse(m, n, x), delta(..), visible(..): of an element of the tile. Whether there
// is a cap or a mask is asked once a tile, not once an element.
template <bool capped, bool masked, int M, int N8, class Lse, class Delta, class Visible>
__device__ inline void gradient_tile(float (&s)[M][N8][4], float (&dp)[M][N8][4], const Heads& h, Lse lse, Delta delta,
                                     Visible visible) {
  const float unit = h.scale * kLog2e;
#pragma unroll
  for (int m = 0; m < M; ++m)
#pragma unroll
    for (int n = 0; n < N8; ++n)
#pragma unroll
      for (int x = 0; x < 4; ++x) {
        const float bent = capped ? tanh_fast(s[m][n][x] * h.scale / h.cap) : 0;
        const float score = capped ? h.cap * kLog2e * bent : s[m][n][x] * unit;
        float p = exp2_fast(score - lse(m, n, x) * kLog2e);
        if (masked && !visible(m, n, x)) p = 0;
        dp[m][n][x] = p * (dp[m][n][x] - delta(m, n, x)) * (1 - bent * bent);
        s[m][n][x] = p;
      }
}
template <int M, int N8, class Lse, class Delta, class Visible>
__device__ inline void gradient(float (&s)[M][N8][4], float (&dp)[M][N8][4], const Heads& h, bool masked, Lse lse, Delta delta,
                                Visible visible) {
  if (h.cap > 0) gradient_tile<true, true>(s, dp, h, lse, delta, visible);
  else if (masked) gradient_tile<false, true>(s, dp, h, lse, delta, visible);
  else gradient_tile<false, false>(s, dp, h, lse, delta, visible);
}

enum class Wanted { keys, values, both };

template <int D>
struct KeyTiles {
  static constexpr bool kBoth = D <= 128;  // else the sums of dk and of dv do not fit in the registers together
  static constexpr int kKeys = 64, kQueries = D <= 96 ? 64 : D <= 128 ? 32 : 16;
  static constexpr int kStage = 2 * kQueries * Rows<D>::bytes + 2 * kQueries * static_cast<int>(sizeof(float));
  static constexpr int kBytes = 2 * kKeys * Rows<D>::bytes + 2 * kStage;
};

template <int D, bool alibi, Wanted wanted>
__global__ __launch_bounds__(kTileThreads) void key_kernel(bfloat* dk, bfloat* dv, bool add_k, bool add_v, const bfloat* dout,
                                                           const bfloat* q, const bfloat* k, const bfloat* v, const float* lse,
                                                           const float* delta, Heads h, i64 sequences) {
  using Size = KeyTiles<D>;
  constexpr int kKeys = Size::kKeys, kQueries = Size::kQueries;
  constexpr bool keys = wanted != Wanted::values, values = wanted != Wanted::keys;
  extern __shared__ __align__(128) unsigned char memory[];
  const int tokens = h.visible.tokens, d = h.d;
  const Task task((tokens + kKeys - 1) / kKeys, h.kv_heads, sequences);
  const int k0 = task.tile * kKeys, group = h.heads / h.kv_heads;  // the first keys are seen by most queries
  const i64 row0 = task.sequence * tokens, ldq = h.q_stride(), ldk = h.k_stride(), own = row0 * ldk + task.head * d;
  const int begin = h.visible.causal ? k0 / kQueries * kQueries : 0;
  const int end = h.visible.window > 0 ? min(tokens, k0 + kKeys - 1 + h.visible.window) : tokens;
  const int tiles = (end - begin + kQueries - 1) / kQueries, steps = group * tiles;

  const unsigned ks = shared_address(memory), vs = ks + kKeys * Rows<D>::bytes, stages = vs + kKeys * Rows<D>::bytes;
  unsigned char* const stage_memory = memory + 2 * kKeys * Rows<D>::bytes;
  const int warp_row = static_cast<int>(threadIdx.x) / kWarp * 16;
  const auto copy_step = [&](int step) {  // queries, do, lse, delta
    const int head = task.head * group + step / tiles, i0 = begin + step % tiles * kQueries;
    const unsigned to = stages + step % 2 * Size::kStage;
    const i64 from = row0 * ldq + head * d;
    copy_rows<D, kQueries>(to, q + from, ldq, i0, tokens, d);
    copy_rows<D, kQueries>(to + kQueries * Rows<D>::bytes, dout + from, ldq, i0, tokens, d);
    const int row = static_cast<int>(threadIdx.x) % kQueries, which = static_cast<int>(threadIdx.x) / kQueries;
    if (which >= 2) return;
    const bool there = i0 + row < tokens;
    const float* statistic = (which == 0 ? lse : delta) + (there ? (row0 + i0 + row) * h.heads + head : 0);
    copy_async<4>(to + 2 * kQueries * Rows<D>::bytes + (which * kQueries + row) * 4, statistic, there);
  };

  Bias bias{};
  Tile<1, D> sum_k, sum_v;
  clear(sum_k), clear(sum_v);
  copy_rows<D, kKeys>(ks, k + own, ldk, k0, tokens, d);
  copy_rows<D, kKeys>(vs, v + own, ldk, k0, tokens, d);
  copy_step(0);
  for (int step = 0; step < steps; ++step) {
    arrived();  // this step's tiles; and those of the step before are done with
    if (step + 1 < steps) copy_step(step + 1);
    const unsigned qs = stages + step % 2 * Size::kStage, os = qs + kQueries * Rows<D>::bytes;
    const float* row_lse = reinterpret_cast<const float*>(stage_memory + step % 2 * Size::kStage + 2 * kQueries * Rows<D>::bytes);
    const int i0 = begin + step % tiles * kQueries;
    Tile<1, kQueries> s, dp;
    multiply_rows<D>(s, ks + warp_row * Rows<D>::bytes, qs);
    if constexpr (alibi) {
      if (step % tiles == 0) bias = bias_of(h, task.head * group + step / tiles);
      add_bias(s, bias, [&](int, int n, int x) { return i0 + tile_column(n, x); },
               [&](int m, int, int x) { return k0 + warp_row + tile_row(m, x); });
    }
    multiply_rows<D>(dp, vs + warp_row * Rows<D>::bytes, os);
    gradient(s, dp, h, !h.visible.all(i0, kQueries, k0, kKeys), [&](int, int n, int x) { return row_lse[tile_column(n, x)]; },
             [&](int, int n, int x) { return row_lse[kQueries + tile_column(n, x)]; },
             [&](int m, int n, int x) { return h.visible.sees(i0 + tile_column(n, x), k0 + warp_row + tile_row(m, x)); });
    if constexpr (values) multiply_tile<D>(sum_v, s, os);
    if constexpr (keys) multiply_tile<D>(sum_k, dp, qs);
  }
  if (values && dv != nullptr)
    write_rows(dv + own, ldk, add_v, k0 + warp_row, tokens, d, sum_v, [](int, int) { return 1.0f; });
  if (keys && dk != nullptr) write_rows(dk + own, ldk, add_k, k0 + warp_row, tokens, d, sum_k, [&](int, int) { return h.scale; });
}

template <int D>
struct QueryTiles {
  static constexpr int kRows = D <= 128 ? 2 : 1;  // pieces of 16 queries a warp
  static constexpr int kQueries = 64 * kRows, kKeys = D <= 128 ? 32 : 16;
  static constexpr int kStage = 2 * kKeys * Rows<D>::bytes;
  static constexpr int kBytes = 2 * kQueries * Rows<D>::bytes + 2 * kStage;
};

template <int D, bool alibi>
__global__ __launch_bounds__(kTileThreads) void query_kernel(bfloat* dq, bool add, const bfloat* dout, const bfloat* q,
                                                             const bfloat* k, const bfloat* v, const float* lse,
                                                             const float* delta, Heads h, i64 sequences) {
  using Size = QueryTiles<D>;
  constexpr int M = Size::kRows, kQueries = Size::kQueries, kKeys = Size::kKeys;
  extern __shared__ __align__(128) unsigned char memory[];
  const int tokens = h.visible.tokens, d = h.d, tiles = (tokens + kQueries - 1) / kQueries;
  const Task task(tiles, h.heads, sequences);
  const int q0 = (tiles - 1 - task.tile) * kQueries;  // the last queries see most keys
  const i64 row0 = task.sequence * tokens, ldq = h.q_stride(), ldk = h.k_stride(), own = row0 * ldq + task.head * d;
  k += row0 * ldk + h.kv_of(task.head) * d, v += row0 * ldk + h.kv_of(task.head) * d;
  const unsigned qs = shared_address(memory), os = qs + kQueries * Rows<D>::bytes, stages = os + kQueries * Rows<D>::bytes;
  const int warp_row = static_cast<int>(threadIdx.x) / kWarp * 16 * M;
  const int begin = h.visible.low(q0) / kKeys * kKeys, end = h.visible.high(min(q0 + kQueries, tokens) - 1);
  const auto copy_step = [&](int k0) {
    const unsigned to = stages + (k0 / kKeys) % 2 * Size::kStage;
    copy_rows<D, kKeys>(to, k, ldk, k0, tokens, d);
    copy_rows<D, kKeys>(to + kKeys * Rows<D>::bytes, v, ldk, k0, tokens, d);
  };

  copy_rows<D, kQueries>(qs, q + own, ldq, q0, tokens, d);
  copy_rows<D, kQueries>(os, dout + own, ldq, q0, tokens, d);
  copy_step(begin);
  float row_lse[M][2], row_delta[M][2];
#pragma unroll
  for (int m = 0; m < M; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = min(q0 + warp_row + tile_row(m, 2 * half), tokens - 1);  // what lies beyond is not written
      row_lse[m][half] = lse[(row0 + row) * h.heads + task.head];
      row_delta[m][half] = delta[(row0 + row) * h.heads + task.head];
    }
  const Bias bias = bias_of(h, task.head);
  Tile<M, D> sum;
  clear(sum);
  for (int k0 = begin; k0 < end; k0 += kKeys) {
    arrived();  // this step's tiles; and those of the step before are done with
    if (k0 + kKeys < end) copy_step(k0 + kKeys);
    const unsigned ks = stages + (k0 / kKeys) % 2 * Size::kStage, vs = ks + kKeys * Rows<D>::bytes;
    Tile<M, kKeys> s, dp;
    multiply_rows<D>(s, qs + warp_row * Rows<D>::bytes, ks);
    if constexpr (alibi)
      add_bias(s, bias, [&](int m, int, int x) { return q0 + warp_row + tile_row(m, x); },
               [&](int, int n, int x) { return k0 + tile_column(n, x); });
    multiply_rows<D>(dp, os + warp_row * Rows<D>::bytes, vs);
    gradient(s, dp, h, !h.visible.all(q0, kQueries, k0, kKeys), [&](int m, int, int x) { return row_lse[m][x / 2]; },
             [&](int m, int, int x) { return row_delta[m][x / 2]; },
             [&](int m, int n, int x) { return h.visible.sees(q0 + warp_row + tile_row(m, x), k0 + tile_column(n, x)); });
    multiply_tile<D>(sum, dp, ks);
  }
  write_rows(dq + own, ldq, add, q0 + warp_row, tokens, d, sum, [&](int, int) { return h.scale; });
}

// ---- any type and head size, in float

// One score and one product dp = do v^T -> p and ds.
__device__ inline void gradient(float& s, float& dp, const Heads& h, bool visible, float lse, float delta) {
  s *= h.scale;
  float slope = 1;
  if (h.cap > 0) {
    const float bent = tanhf(s / h.cap);
    s = h.cap * bent, slope = 1 - bent * bent;
  }
  s = visible ? expf(s - lse) : 0;
  dp = s * (dp - delta) * slope;
}

template <class T>
__global__ __launch_bounds__(kBlock) void general_key_kernel(T* dk, T* dv, bool add_k, bool add_v, const T* dout, const T* q,
                                                             const T* k, const T* v, const float* lse, const float* delta,
                                                             Heads h, i64 sequences) {
  extern __shared__ float rows[];
  const int tokens = h.visible.tokens, d = h.d, group = h.heads / h.kv_heads;
  const Task task((tokens + kOwners - 1) / kOwners, h.kv_heads, sequences);
  const int k0 = task.tile * kOwners, owner = static_cast<int>(threadIdx.x) / kTeam;
  const i64 row0 = task.sequence * tokens, ldq = h.q_stride(), ldk = h.k_stride(), own = row0 * ldk + task.head * d;
  float *ks = rows, *vs = ks + kOwners * (d + 1), *qs = vs + kOwners * (d + 1), *os = qs + kOthers * (d + 1);
  float sum_k[kShare] = {}, sum_v[kShare] = {};
  copy_rows(ks, k + own, ldk, k0, kOwners, tokens, d);
  copy_rows(vs, v + own, ldk, k0, kOwners, tokens, d);
  const int end = h.visible.window > 0 ? min(tokens, k0 + kOwners - 1 + h.visible.window) : tokens;
  for (int head = task.head * group; head < (task.head + 1) * group; ++head) {
    const Bias bias = bias_of(h, head);
    for (int i0 = h.visible.causal ? k0 : 0; i0 < end; i0 += kOthers) {
      __syncthreads();
      copy_rows(qs, q + row0 * ldq + head * d, ldq, i0, kOthers, tokens, d);
      copy_rows(os, dout + row0 * ldq + head * d, ldq, i0, kOthers, tokens, d);
      __syncthreads();
      float p[2], ds[2];
      for (int x = 0; x < 2; ++x) {
        const int i = x * kTeam + lane() % kTeam;
        const i64 at = (row0 + min(i0 + i, tokens - 1)) * h.heads + head;
        p[x] = product(ks + owner * (d + 1), qs + i * (d + 1), d) + bias(i0 + i, k0 + owner);
        ds[x] = product(vs + owner * (d + 1), os + i * (d + 1), d);
        gradient(p[x], ds[x], h, h.visible.sees(i0 + i, k0 + owner), lse[at], delta[at]);
      }
      multiply_share(sum_v, p, os, d);
      multiply_share(sum_k, ds, qs, d);
    }
  }
  if (k0 + owner >= tokens) return;
  if (dk != nullptr) write_share(dk + own + (k0 + owner) * ldk, add_k, sum_k, h.scale, d);
  if (dv != nullptr) write_share(dv + own + (k0 + owner) * ldk, add_v, sum_v, 1, d);
}

template <class T>
__global__ __launch_bounds__(kBlock) void general_query_kernel(T* dq, bool add, const T* dout, const T* q, const T* k, const T* v,
                                                               const float* lse, const float* delta, Heads h, i64 sequences) {
  extern __shared__ float rows[];
  const int tokens = h.visible.tokens, d = h.d, tiles = (tokens + kOwners - 1) / kOwners;
  const Task task(tiles, h.heads, sequences);
  const int q0 = (tiles - 1 - task.tile) * kOwners, owner = static_cast<int>(threadIdx.x) / kTeam;
  const i64 row0 = task.sequence * tokens, ldq = h.q_stride(), ldk = h.k_stride(), own = row0 * ldq + task.head * d;
  k += row0 * ldk + h.kv_of(task.head) * d, v += row0 * ldk + h.kv_of(task.head) * d;
  float *qs = rows, *os = qs + kOwners * (d + 1), *ks = os + kOwners * (d + 1), *vs = ks + kOthers * (d + 1);
  const i64 at = (row0 + min(q0 + owner, tokens - 1)) * h.heads + task.head;
  const Bias bias = bias_of(h, task.head);
  float sum[kShare] = {};
  copy_rows(qs, q + own, ldq, q0, kOwners, tokens, d);
  copy_rows(os, dout + own, ldq, q0, kOwners, tokens, d);
  const int end = h.visible.high(min(q0 + kOwners, tokens) - 1);
  for (int k0 = h.visible.low(q0); k0 < end; k0 += kOthers) {
    __syncthreads();
    copy_rows(ks, k, ldk, k0, kOthers, tokens, d);
    copy_rows(vs, v, ldk, k0, kOthers, tokens, d);
    __syncthreads();
    float ds[2];
    for (int x = 0; x < 2; ++x) {
      const int j = x * kTeam + lane() % kTeam;
      float p = product(qs + owner * (d + 1), ks + j * (d + 1), d) + bias(q0 + owner, k0 + j);
      ds[x] = product(os + owner * (d + 1), vs + j * (d + 1), d);
      gradient(p, ds[x], h, h.visible.sees(q0 + owner, k0 + j), lse[at], delta[at]);
    }
    multiply_share(sum, ds, ks, d);
  }
  if (q0 + owner < tokens) write_share(dq + own + (q0 + owner) * ldq, add, sum, h.scale, d);
}

template <class T>
void general_backward(cudaStream_t stream, T* dq, T* dk, T* dv, Acc acc_q, Acc acc_k, Acc acc_v, const float* delta,
                      const T* dout, const T* q, const T* k, const T* v, const float* lse, const AttentionShape& shape) {
  const int bytes = float_rows_bytes(2 * kOwners + 2 * kOthers, shape.head_dim);
  const i64 tiles = divide_up(shape.tokens, kOwners);
  if (dk != nullptr || dv != nullptr)
    launch(general_key_kernel<T>, tasks(tiles, shape.kv_heads, shape.batch), kBlock, bytes, stream, dk, dv, acc_k == Acc::add,
           acc_v == Acc::add, dout, q, k, v, lse, delta, Heads(shape), shape.batch);
  if (dq != nullptr)
    launch(general_query_kernel<T>, tasks(tiles, shape.heads, shape.batch), kBlock, bytes, stream, dq, acc_q == Acc::add, dout, q,
           k, v, lse, delta, Heads(shape), shape.batch);
}

}  // namespace

template <>
void attention_backward(cudaStream_t stream, bfloat* dq, bfloat* dk, bfloat* dv, Acc acc_q, Acc acc_k, Acc acc_v, float* delta,
                        const bfloat* dout, const bfloat* q, const bfloat* k, const bfloat* v, const bfloat* o, const float* lse,
                        const AttentionShape& shape) {
  check_head_dim(shape);
  compute_delta(stream, delta, dout, o, shape);
  if (!fits_tiles(shape)) return general_backward(stream, dq, dk, dv, acc_q, acc_k, acc_v, delta, dout, q, k, v, lse, shape);
  if (hopper_attends(shape))
    return hopper_attention_backward(stream, dq, dk, dv, acc_q, acc_k, acc_v, delta, dout, q, k, v, lse, shape);
  with_head_dim(shape, [&](auto D, auto alibi) {
    using Keys = KeyTiles<D()>;
    using Queries = QueryTiles<D()>;
    const unsigned key_blocks = tasks(divide_up(shape.tokens, Keys::kKeys), shape.kv_heads, shape.batch);
    const auto launch_keys = [&](auto kernel) {
      launch(kernel, key_blocks, kTileThreads, Keys::kBytes, stream, dk, dv, acc_k == Acc::add, acc_v == Acc::add, dout, q, k, v,
             lse, delta, Heads(shape), shape.batch);
    };
    if constexpr (Keys::kBoth) {
      if (dk != nullptr || dv != nullptr) launch_keys(key_kernel<D(), alibi(), Wanted::both>);
    } else {
      if (dk != nullptr) launch_keys(key_kernel<D(), alibi(), Wanted::keys>);
      if (dv != nullptr) launch_keys(key_kernel<D(), alibi(), Wanted::values>);
    }
    const unsigned query_blocks = tasks(divide_up(shape.tokens, Queries::kQueries), shape.heads, shape.batch);
    if (dq != nullptr)
      launch(query_kernel<D(), alibi()>, query_blocks, kTileThreads, Queries::kBytes, stream, dq, acc_q == Acc::add, dout, q, k,
             v, lse, delta, Heads(shape), shape.batch);
  });
}

template <>
void attention_backward(cudaStream_t stream, float* dq, float* dk, float* dv, Acc acc_q, Acc acc_k, Acc acc_v, float* delta,
                        const float* dout, const float* q, const float* k, const float* v, const float* o, const float* lse,
                        const AttentionShape& shape) {
  check_head_dim(shape);
  compute_delta(stream, delta, dout, o, shape);
  general_backward(stream, dq, dk, dv, acc_q, acc_k, acc_v, delta, dout, q, k, v, lse, shape);
}

}  // namespace signround::cuda
