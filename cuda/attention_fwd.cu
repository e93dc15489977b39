// Attention forward in tiles, after FlashAttention-2 (Dao 2023). A block owns a tile of queries of one head and walks over the
// tiles of keys that they see, with a running maximum m and sum l of each query's row:
//   s = q k^T,   m' = max(m, s),   p = exp(s - m'),   l = l exp(m - m') + sum p,   o = o exp(m - m') + p v
//   o /= l,   lse = m + log l
#include "cuda/attention_tiles.cuh"
#include "cuda/hopper_attention.h"

namespace signround::cuda {
namespace {

template <int D>
struct ForwardTiles {
  static constexpr int kRows = D <= 128 ? 2 : 1;  // pieces of 16 queries a warp
  static constexpr int kQueries = 64 * kRows, kKeys = 64;
  static constexpr int kBytes = (kQueries + 2 * kKeys) * Rows<D>::bytes;
};

// While scores are computed the values arrive, and while those are multiplied the next keys.
template <int D, bool alibi>
__global__ __launch_bounds__(kTileThreads) void forward_kernel(bfloat* o, float* lse, const bfloat* q, const bfloat* k,
                                                               const bfloat* v, Heads h, i64 sequences) {
  using Size = ForwardTiles<D>;
  constexpr int M = Size::kRows, kQueries = Size::kQueries, kKeys = Size::kKeys;
  extern __shared__ __align__(128) unsigned char memory[];
  const int tokens = h.visible.tokens, d = h.d, tiles = (tokens + kQueries - 1) / kQueries;
  const Task task(tiles, h.heads, sequences);
  const int q0 = (tiles - 1 - task.tile) * kQueries;  // the last queries see most keys
  const i64 row0 = task.sequence * tokens, ldq = h.q_stride(), ldk = h.k_stride();
  q += row0 * ldq + task.head * d, o += row0 * ldq + task.head * d;
  k += row0 * ldk + h.kv_of(task.head) * d, v += row0 * ldk + h.kv_of(task.head) * d;
  const unsigned qs = shared_address(memory), ks = qs + kQueries * Rows<D>::bytes, vs = ks + kKeys * Rows<D>::bytes;
  const int warp_row = static_cast<int>(threadIdx.x) / kWarp * 16 * M;

  Tile<M, D> out;
  clear(out);
  float top[M][2], sum[M][2];  // sum: the thread's own columns; top in units of 1 / unit
#pragma unroll
  for (int m = 0; m < M; ++m) top[m][0] = top[m][1] = -INFINITY, sum[m][0] = sum[m][1] = 0;
  const float unit = h.cap > 0 ? kLog2e : h.scale * kLog2e;
  const Bias bias = bias_of(h, task.head);

  const int begin = h.visible.low(q0) / kKeys * kKeys, end = h.visible.high(min(q0 + kQueries, tokens) - 1);
  copy_rows<D, kQueries>(qs, q, ldq, q0, tokens, d);
  copy_rows<D, kKeys>(ks, k, ldk, begin, tokens, d);
  for (int k0 = begin; k0 < end; k0 += kKeys) {
    arrived();  // keys; and the values of the step before are done with
    copy_rows<D, kKeys>(vs, v, ldk, k0, tokens, d);
    Tile<M, kKeys> s;
    multiply_rows<D>(s, qs + warp_row * Rows<D>::bytes, ks);
    if constexpr (alibi)
      add_bias(s, bias, [&](int m, int, int x) { return q0 + warp_row + tile_row(m, x); },
               [&](int, int n, int x) { return k0 + tile_column(n, x); });

    const bool masked = !h.visible.all(q0, kQueries, k0, kKeys);
#pragma unroll
    for (int m = 0; m < M; ++m) {
      if (h.cap > 0) {
#pragma unroll
        for (int n = 0; n < kKeys / 8; ++n)
#pragma unroll
          for (int x = 0; x < 4; ++x) s[m][n][x] = h.cap * tanh_fast(s[m][n][x] * h.scale / h.cap);
      }
      if (masked) {
#pragma unroll
        for (int n = 0; n < kKeys / 8; ++n)
#pragma unroll
          for (int x = 0; x < 4; ++x)
            if (!h.visible.sees(q0 + warp_row + tile_row(m, x), k0 + tile_column(n, x))) s[m][n][x] = -INFINITY;
      }
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float most = top[m][half];
#pragma unroll
        for (int n = 0; n < kKeys / 8; ++n) most = fmaxf(most, fmaxf(s[m][n][2 * half], s[m][n][2 * half + 1]));
        most = quad_max(most);
        const float base = most == -INFINITY ? 0 : most * unit;  // nothing seen yet: all p are 0, not NaN
        const float old = exp2_fast(top[m][half] * unit - base);
        top[m][half] = most;
        float total = 0;
#pragma unroll
        for (int n = 0; n < kKeys / 8; ++n)
#pragma unroll
          for (int x = 2 * half; x < 2 * half + 2; ++x) total += s[m][n][x] = exp2_fast(s[m][n][x] * unit - base);
        sum[m][half] = sum[m][half] * old + total;
#pragma unroll
        for (int n = 0; n < D / 8; ++n) out[m][n][2 * half] *= old, out[m][n][2 * half + 1] *= old;
      }
    }
    arrived();  // values; and the keys are done with
    if (k0 + kKeys < end) copy_rows<D, kKeys>(ks, k, ldk, k0 + kKeys, tokens, d);
    multiply_tile<D>(out, s, vs);
  }

#pragma unroll
  for (int m = 0; m < M; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      sum[m][half] = quad_sum(sum[m][half]);
      const int row = q0 + warp_row + tile_row(m, 2 * half);
      if (row < tokens && lane() % 4 == 0)
        lse[(row0 + row) * h.heads + task.head] = top[m][half] * unit * kLn2 + logf(sum[m][half]);
    }
  write_rows(o, ldq, false, q0 + warp_row, tokens, d, out, [&](int m, int half) { return 1 / sum[m][half]; });
}

template <class T>
__global__ __launch_bounds__(kBlock) void general_forward_kernel(T* o, float* lse, const T* q, const T* k, const T* v, Heads h,
                                                                 i64 sequences) {
  extern __shared__ float rows[];
  const int tokens = h.visible.tokens, d = h.d, tiles = (tokens + kOwners - 1) / kOwners;
  const Task task(tiles, h.heads, sequences);
  const int q0 = (tiles - 1 - task.tile) * kOwners, owner = static_cast<int>(threadIdx.x) / kTeam, i = q0 + owner;
  const i64 row0 = task.sequence * tokens, ldq = h.q_stride(), ldk = h.k_stride();
  q += row0 * ldq + task.head * d, o += row0 * ldq + task.head * d;
  k += row0 * ldk + h.kv_of(task.head) * d, v += row0 * ldk + h.kv_of(task.head) * d;
  float *qs = rows, *ks = qs + kOwners * (d + 1), *vs = ks + kOthers * (d + 1);

  const Bias bias = bias_of(h, task.head);
  float out[kShare] = {}, top = -INFINITY, sum = 0;
  copy_rows(qs, q, ldq, q0, kOwners, tokens, d);
  const int end = h.visible.high(min(q0 + kOwners, tokens) - 1);
  for (int k0 = h.visible.low(q0); k0 < end; k0 += kOthers) {
    __syncthreads();
    copy_rows(ks, k, ldk, k0, kOthers, tokens, d);
    copy_rows(vs, v, ldk, k0, kOthers, tokens, d);
    __syncthreads();
    float p[2], most = top;
    for (int x = 0; x < 2; ++x) {
      const int j = x * kTeam + lane() % kTeam;
      p[x] = (product(qs + owner * (d + 1), ks + j * (d + 1), d) + bias(i, k0 + j)) * h.scale;
      if (h.cap > 0) p[x] = h.cap * tanhf(p[x] / h.cap);
      if (!h.visible.sees(i, k0 + j)) p[x] = -INFINITY;
      most = fmaxf(most, p[x]);
    }
    for (int step = 1; step < kTeam; step *= 2) most = fmaxf(most, __shfl_xor_sync(~0u, most, step));
    const float base = most == -INFINITY ? 0 : most, old = expf(top - base);
    top = most;
    for (int x = 0; x < 2; ++x) p[x] = expf(p[x] - base);
    float total = p[0] + p[1];
    for (int step = 1; step < kTeam; step *= 2) total += __shfl_xor_sync(~0u, total, step);
    sum = sum * old + total;
#pragma unroll
    for (int x = 0; x < kShare; ++x) out[x] *= old;
    multiply_share(out, p, vs, d);
  }
  if (i >= tokens) return;
  if (lane() % kTeam == 0) lse[(row0 + i) * h.heads + task.head] = top + logf(sum);
  write_share(o + i * ldq, false, out, 1 / sum, d);
}

template <class T>
void general_forward(cudaStream_t stream, T* o, float* lse, const T* q, const T* k, const T* v, const AttentionShape& shape) {
  check_head_dim(shape);
  launch(general_forward_kernel<T>, tasks(divide_up(shape.tokens, kOwners), shape.heads, shape.batch), kBlock,
         float_rows_bytes(kOwners + 2 * kOthers, shape.head_dim), stream, o, lse, q, k, v, Heads(shape), shape.batch);
}

}  // namespace

template <>
void attention_forward(cudaStream_t stream, bfloat* o, float* lse, const bfloat* q, const bfloat* k, const bfloat* v,
                       const AttentionShape& shape) {
  if (!fits_tiles(shape)) return general_forward(stream, o, lse, q, k, v, shape);
  check_head_dim(shape);
  check(shape.scale > 0, ErrorKind::bug, "attention: the scale has to be positive");
  if (hopper_attends(shape)) return hopper_attention_forward(stream, o, lse, q, k, v, shape);
  with_head_dim(shape, [&](auto D, auto alibi) {
    using Size = ForwardTiles<D()>;
    const unsigned blocks = tasks(divide_up(shape.tokens, Size::kQueries), shape.heads, shape.batch);
    launch(forward_kernel<D(), alibi()>, blocks, kTileThreads, Size::kBytes, stream, o, lse, q, k, v, Heads(shape), shape.batch);
  });
}

template <>
void attention_forward(cudaStream_t stream, float* o, float* lse, const float* q, const float* k, const float* v,
                       const AttentionShape& shape) {
  general_forward(stream, o, lse, q, k, v, shape);
}

}  // namespace signround::cuda
