// Attention backward on Hopper; formulas: attention_bwd.cu, division of work: hopper_attention.cuh. As there, a tile of keys and
// a tile of queries each own their sums, and the tile of scores has the owner's rows, so that what a thread computed is its left
// factor of the next product as it is.
#include "cuda/hopper_attention.cuh"

namespace signround::cuda {
namespace hopper {
namespace {

inline constexpr int kOwnerGroups = 2, kOwners = 64 * kOwnerGroups;  // warpgroups that multiply, and their rows
inline constexpr int kOwnerThreads = kOwnerGroups * kWarpgroup, kBackwardThreads = kOwnerThreads + kWarpgroup;

// Scores s -> p = exp2(unit s - lse), then products dp = do v^T -> ds. lse(n, x) in base 2, delta(n, x): of an element's query.
template <int N8, class F>
__device__ inline void probabilities(float (&s)[N8][4], float unit, F lse) {
#pragma unroll
  for (int n = 0; n < N8; ++n)
#pragma unroll
    for (int x = 0; x < 4; ++x) s[n][x] = exp2_fast(s[n][x] * unit - lse(n, x));
}
template <int N8, class F>
__device__ inline void hide(float (&p)[N8][4], F visible) {
#pragma unroll
  for (int n = 0; n < N8; ++n)
#pragma unroll
    for (int x = 0; x < 4; ++x)
      if (!visible(n, x)) p[n][x] = 0;
}
template <int N8, class F>
__device__ inline void score_gradients(float (&dp)[N8][4], const float (&p)[N8][4], F delta) {
#pragma unroll
  for (int n = 0; n < N8; ++n)
#pragma unroll
    for (int x = 0; x < 4; ++x) dp[n][x] = p[n][x] * (dp[n][x] - delta(n, x));
}
template <int N8>
__device__ inline void pack(unsigned (&to)[N8 / 2][4], const float (&from)[N8][4]) {
#pragma unroll
  for (int k = 0; k < N8 / 2; ++k) as_factor(to[k], from[2 * k], from[2 * k + 1]);
}

__device__ inline float one_of(float2 two, int x) { return x % 2 == 0 ? two.x : two.y; }

// ---- dk, dv: a block owns a tile of keys; queries pass by.

template <int D>
struct KeyTiles {
  static constexpr int kQueries = 64, kStages = D == 64 ? 4 : 3;
  static constexpr int kOwnBytes = kOwners * D * 2, kQueryBytes = kQueries * D * 2;
  static constexpr int kStage = 2 * kQueryBytes;                                             // queries and do
  static constexpr int kStatistics = 2 * kQueries * static_cast<int>(sizeof(float));         // lse and delta of a stage
  static constexpr int kTiles = 2 * kOwnBytes + kStages * (kStage + kStatistics);
  static constexpr int kBytes = kTileSlack + kTiles + Ring<1>::kBytes + Ring<kStages>::kBytes;
};

// A tile of keys of one KV head, and the steps in which queries pass by: tile for tile, of one query head after another. The
// first keys are seen by most queries and come first.
struct KeyWork {
  int kv_head, sequence, k0, begin, tiles, steps;
  __device__ KeyWork(const Heads& h, i64 index, int queries, i64 sequences) {
    const i64 pairs = sequences * h.kv_heads;
    kv_head = static_cast<int>(index % pairs) % h.kv_heads, sequence = static_cast<int>(index % pairs) / h.kv_heads;
    k0 = static_cast<int>(index / pairs) * kOwners;
    begin = h.visible.causal ? k0 / queries * queries : 0;
    const int tokens = h.visible.tokens, end = h.visible.window > 0 ? min(tokens, k0 + kOwners - 1 + h.visible.window) : tokens;
    tiles = (end - begin + queries - 1) / queries, steps = h.heads / h.kv_heads * tiles;
  }
  __device__ int head(const Heads& h, int step) const { return kv_head * (h.heads / h.kv_heads) + step / tiles; }
  __device__ int query(int step, int queries) const { return begin + step % tiles * queries; }
};

template <int D>
__global__ __launch_bounds__(kBackwardThreads, 1) void key_kernel(
    bfloat* dk, bfloat* dv, bool add_k, bool add_v, const __grid_constant__ CUtensorMap dout_map,
    const __grid_constant__ CUtensorMap q_map, const __grid_constant__ CUtensorMap k_map,
    const __grid_constant__ CUtensorMap v_map, const float* lse, const float* delta, Heads h, i64 sequences) {
  using Size = KeyTiles<D>;
  constexpr int kQueries = Size::kQueries, kStages = Size::kStages;
  extern __shared__ unsigned char memory[];
  const unsigned ks = aligned_tiles(memory), vs = ks + Size::kOwnBytes, stages = vs + Size::kOwnBytes;
  const unsigned statistics_at = stages + kStages * Size::kStage, barriers = ks + Size::kTiles;
  float* const statistics = reinterpret_cast<float*>(memory + (statistics_at - shared_address(memory)));
  const Ring<1> owned(barriers);
  const Ring<kStages> passing(barriers + Ring<1>::kBytes);
  if (threadIdx.x == 0) {
    owned.init(1, kOwnerThreads), passing.init(kWarp, kOwnerThreads);
    barriers_are_made();
  }
  __syncthreads();

  const int tokens = h.visible.tokens, tiles = (tokens + kOwners - 1) / kOwners;
  const i64 works = sequences * h.kv_heads * tiles;
  const auto stage_at = [&](int n) { return stages + Ring<kStages>::place(n) * Size::kStage; };
  const auto statistics_of = [&](int n) { return statistics + Ring<kStages>::place(n) * 2 * kQueries; };
  int round = 0, n = 0;  // fillings of the two rings
  if (threadIdx.x < kWarpgroup) {
    give_registers<24>();
    if (threadIdx.x < kWarp) {
      for (i64 index; (index = dealt(round)) < works; ++round) {
        const KeyWork work(h, index, kQueries, sequences);
        owned.await_empty(round);
        if (lane() == 0) {
          arrive_expecting(owned.full_at(round), 2 * Size::kOwnBytes);
          copy_tile<D>(ks, k_map, kOwners, work.kv_head, work.k0, work.sequence, owned.full_at(round));
          copy_tile<D>(vs, v_map, kOwners, work.kv_head, work.k0, work.sequence, owned.full_at(round));
        }
        for (int step = 0; step < work.steps; ++step, ++n) {
          const int head = work.head(h, step), i0 = work.query(step, kQueries);
          // On their way while the place is still in use. What is not there gets p = exp2(-inf) = 0.
          float read_lse[kQueries / kWarp], read_delta[kQueries / kWarp];
#pragma unroll
          for (int i = 0; i < kQueries / kWarp; ++i) {
            const int query = i0 + i * kWarp + lane();
            const i64 at = (static_cast<i64>(work.sequence) * tokens + query) * h.heads + head;
            read_lse[i] = query < tokens ? lse[at] * kLog2e : INFINITY, read_delta[i] = query < tokens ? delta[at] : 0;
          }
          passing.await_empty(n);
          if (lane() == 0) {
            copy_tile<D>(stage_at(n), q_map, kQueries, head, i0, work.sequence, passing.full_at(n));
            copy_tile<D>(stage_at(n) + Size::kQueryBytes, dout_map, kQueries, head, i0, work.sequence, passing.full_at(n));
          }
          float* const to = statistics_of(n);
#pragma unroll
          for (int i = 0; i < kQueries / kWarp; ++i)
            to[i * kWarp + lane()] = read_lse[i], to[kQueries + i * kWarp + lane()] = read_delta[i];
          if (lane() == 0) arrive_expecting(passing.full_at(n), Size::kStage);
          else arrive(passing.full_at(n));
        }
      }
    }
  } else {
    take_registers<240>();
    const float unit = h.scale * kLog2e;
    const int group = static_cast<int>(threadIdx.x) / kWarpgroup - 1;
    const int warp_row = static_cast<int>(threadIdx.x) % kWarpgroup / kWarp * 16;
    for (i64 index; (index = dealt(round)) < works; ++round) {
      const KeyWork work(h, index, kQueries, sequences);
      const int k0 = work.k0 + 64 * group, row = k0 + warp_row;
      Tile<1, D> sum_k, sum_v;
      clear(sum_k), clear(sum_v);
      InUse<kStages> in_use{passing};
      const auto finish = [&] {
        products_done<0>(sum_v[0]);
        products_done<0>(sum_k[0]);
        in_use.release();
      };
      owned.await_full(round);
      for (int step = 0; step < work.steps; ++step, ++n) {
        const int i0 = work.query(step, kQueries);
        passing.await_full(n);
        const bool unseen = h.visible.causal && i0 + kQueries <= k0;  // by any of these queries
        if (unseen) {
          finish();
          passing.release(n);
        } else {
          const unsigned qs = stage_at(n), os = qs + Size::kQueryBytes;
          const float2* const of = reinterpret_cast<const float2*>(statistics_of(n));  // two neighbouring queries' at a time
          Sums<kQueries> s, dp;
          unsigned p[kQueries / 16][4], ds[kQueries / 16][4];
          products_begin();
          multiply_tiles<D, kQueries>(s, ks, kOwners, 64 * group, qs);
          products_issued();
          multiply_tiles<D, kQueries>(dp, vs, kOwners, 64 * group, os);
          products_issued();
          products_done<1>(s);  // and with it those of the step before
          in_use.change_to(n);
          probabilities(s, unit, [&](int c, int x) { return one_of(of[tile_column(c, 0) / 2], x); });
          if (!h.visible.all(i0, kQueries, k0, 64))
            hide(s, [&](int c, int x) { return h.visible.sees(i0 + tile_column(c, x), row + tile_row(0, x)); });
          pack(p, s);
          products_done<0>(dp);
          products_begin();
          multiply_scores<D, kQueries / 8>(sum_v[0], p, os, 1);
          products_issued();
          score_gradients(dp, s, [&](int c, int x) { return one_of(of[(kQueries + tile_column(c, 0)) / 2], x); });
          pack(ds, dp);
          products_begin();
          multiply_scores<D, kQueries / 8>(sum_k[0], ds, qs, 1);
          products_issued();
          if constexpr (D > 64) finish();  // else these products run beside the next scores', which takes more registers
        }
      }
      finish();
      owned.release(round);
      const i64 ldk = h.k_stride(), own = static_cast<i64>(work.sequence) * tokens * ldk + work.kv_head * h.d;
      if (dv != nullptr) write_rows(dv + own, ldk, add_v, row, tokens, h.d, sum_v, [](int, int) { return 1.0f; });
      if (dk != nullptr) write_rows(dk + own, ldk, add_k, row, tokens, h.d, sum_k, [&](int, int) { return h.scale; });
    }
  }
}

// ---- dq: a block owns a tile of queries; keys pass by.

template <int D>
struct QueryTiles {
  static constexpr int kKeys = D == 64 ? 128 : 64, kStages = 3;
  static constexpr int kOwnBytes = kOwners * D * 2, kKeyBytes = kKeys * D * 2;
  static constexpr int kStage = 2 * kKeyBytes;  // keys and values
  static constexpr int kTiles = 2 * kOwnBytes + kStages * kStage;
  static constexpr int kBytes = kTileSlack + kTiles + Ring<1>::kBytes + Ring<kStages>::kBytes;
};

template <int D>
__global__ __launch_bounds__(kBackwardThreads, 1) void query_kernel(
    bfloat* dq, bool add, const __grid_constant__ CUtensorMap dout_map, const __grid_constant__ CUtensorMap q_map,
    const __grid_constant__ CUtensorMap k_map, const __grid_constant__ CUtensorMap v_map, const float* lse, const float* delta,
    Heads h, i64 sequences) {
  using Size = QueryTiles<D>;
  constexpr int kKeys = Size::kKeys, kStages = Size::kStages;
  extern __shared__ unsigned char memory[];
  const unsigned qs = aligned_tiles(memory), os = qs + Size::kOwnBytes, stages = os + Size::kOwnBytes;
  const unsigned barriers = qs + Size::kTiles;
  const Ring<1> owned(barriers);
  const Ring<kStages> passing(barriers + Ring<1>::kBytes);
  if (threadIdx.x == 0) {
    owned.init(1, kOwnerThreads), passing.init(1, kOwnerThreads);
    barriers_are_made();
  }
  __syncthreads();

  const int tokens = h.visible.tokens, tiles = (tokens + kOwners - 1) / kOwners;
  const i64 works = sequences * h.heads * tiles;
  const auto stage_at = [&](int n) { return stages + Ring<kStages>::place(n) * Size::kStage; };
  int round = 0, n = 0;  // fillings of the two rings
  if (threadIdx.x < kWarpgroup) {
    give_registers<24>();
    if (threadIdx.x == 0) {
      for (i64 index; (index = dealt(round)) < works; ++round) {
        const QueryWork work(h, index, tiles, kOwners, kKeys, sequences);
        owned.await_empty(round);
        arrive_expecting(owned.full_at(round), 2 * Size::kOwnBytes);
        copy_tile<D>(qs, q_map, kOwners, work.head, work.q0, work.sequence, owned.full_at(round));
        copy_tile<D>(os, dout_map, kOwners, work.head, work.q0, work.sequence, owned.full_at(round));
        for (int k0 = work.begin; k0 < work.end; k0 += kKeys, ++n) {
          passing.await_empty(n);
          arrive_expecting(passing.full_at(n), Size::kStage);
          copy_tile<D>(stage_at(n), k_map, kKeys, work.kv_head, k0, work.sequence, passing.full_at(n));
          copy_tile<D>(stage_at(n) + Size::kKeyBytes, v_map, kKeys, work.kv_head, k0, work.sequence, passing.full_at(n));
        }
      }
    }
  } else {
    take_registers<240>();
    const float unit = h.scale * kLog2e;
    const int group = static_cast<int>(threadIdx.x) / kWarpgroup - 1;
    const int warp_row = static_cast<int>(threadIdx.x) % kWarpgroup / kWarp * 16;
    for (i64 index; (index = dealt(round)) < works; ++round) {
      const QueryWork work(h, index, tiles, kOwners, kKeys, sequences);
      const int q0 = work.q0 + 64 * group, row = q0 + warp_row;
      const int end = q0 < tokens ? h.visible.high(min(q0 + 64, tokens) - 1) : work.begin, begin = h.visible.low(q0);
      const i64 row0 = static_cast<i64>(work.sequence) * tokens, ldq = h.q_stride();
      float row_lse[2], row_delta[2];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const i64 at = (row0 + min(row + tile_row(0, 2 * half), tokens - 1)) * h.heads + work.head;  // beyond: not written
        row_lse[half] = lse[at] * kLog2e, row_delta[half] = delta[at];
      }
      Tile<1, D> sum;
      clear(sum);
      InUse<kStages> in_use{passing};
      const auto finish = [&] {
        products_done<0>(sum[0]);
        in_use.release();
      };
      owned.await_full(round);
      for (int k0 = work.begin; k0 < work.end; k0 += kKeys, ++n) {
        passing.await_full(n);
        if (k0 >= end || k0 + kKeys <= begin) {  // none of these queries sees the tile
          finish();
          passing.release(n);
        } else {
          const unsigned ks = stage_at(n), vs = ks + Size::kKeyBytes;
          Sums<kKeys> s, dp;
          unsigned ds[kKeys / 16][4];
          products_begin();
          multiply_tiles<D, kKeys>(s, qs, kOwners, 64 * group, ks);
          products_issued();
          multiply_tiles<D, kKeys>(dp, os, kOwners, 64 * group, vs);
          products_issued();
          products_done<1>(s);  // and with it those of the step before
          in_use.change_to(n);
          probabilities(s, unit, [&](int, int x) { return row_lse[x / 2]; });
          if (!h.visible.all(q0, 64, k0, kKeys))
            hide(s, [&](int c, int x) { return h.visible.sees(row + tile_row(0, x), k0 + tile_column(c, x)); });
          products_done<0>(dp);
          score_gradients(dp, s, [&](int, int x) { return row_delta[x / 2]; });
          pack(ds, dp);
          products_begin();
          multiply_scores<D, kKeys / 8>(sum[0], ds, ks, 1);
          products_issued();
        }
      }
      finish();
      owned.release(round);
      write_rows(dq + row0 * ldq + work.head * h.d, ldq, add, row, tokens, h.d, sum, [&](int, int) { return h.scale; });
    }
  }
}

}  // namespace
}  // namespace hopper

void hopper_attention_backward(cudaStream_t stream, bfloat* dq, bfloat* dk, bfloat* dv, Acc acc_q, Acc acc_k, Acc acc_v,
                               const float* delta, const bfloat* dout, const bfloat* q, const bfloat* k, const bfloat* v,
                               const float* lse, const AttentionShape& shape) {
  const i64 tiles = divide_up(shape.tokens, hopper::kOwners);
  const auto run = [&](auto D) {
    using Keys = hopper::KeyTiles<D()>;
    using Queries = hopper::QueryTiles<D()>;
    const auto of_heads = [&](const bfloat* x, int rows) { return hopper::tensor_map(x, shape, shape.heads, rows); };
    const auto of_kv_heads = [&](const bfloat* x, int rows) { return hopper::tensor_map(x, shape, shape.kv_heads, rows); };
    if (dk != nullptr || dv != nullptr)
      launch(hopper::key_kernel<D()>, hopper::standing_blocks(shape.batch * shape.kv_heads * tiles), hopper::kBackwardThreads,
             Keys::kBytes, stream, dk, dv, acc_k == Acc::add, acc_v == Acc::add, of_heads(dout, Keys::kQueries),
             of_heads(q, Keys::kQueries), of_kv_heads(k, hopper::kOwners), of_kv_heads(v, hopper::kOwners), lse, delta,
             Heads(shape), shape.batch);
    if (dq != nullptr)
      launch(hopper::query_kernel<D()>, hopper::standing_blocks(shape.batch * shape.heads * tiles), hopper::kBackwardThreads,
             Queries::kBytes, stream, dq, acc_q == Acc::add, of_heads(dout, hopper::kOwners), of_heads(q, hopper::kOwners),
             of_kv_heads(k, Queries::kKeys), of_kv_heads(v, Queries::kKeys), lse, delta, Heads(shape), shape.batch);
  };
  if (shape.head_dim == 64) run(std::integral_constant<int, 64>{});
  else run(std::integral_constant<int, 128>{});
}

}  // namespace signround::cuda
