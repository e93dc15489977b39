// Attention forward on Hopper; formulas: attention_fwd.cu, division of work: hopper_attention.cuh. While a warpgroup takes the
// exponentials of one tile of keys, its products with the values of the tile before are under way.
#include "cuda/hopper_attention.cuh"

namespace signround::cuda {
namespace hopper {
namespace {

template <int D>
struct ForwardTiles {
  static constexpr int kGroups = D == 64 ? 3 : 2;  // warpgroups that multiply; registers are 64 D of sums each
  static constexpr int kThreads = (kGroups + 1) * kWarpgroup;
  static constexpr int kQueries = 64 * kGroups, kKeys = 128, kStages = 2;
  static constexpr int kRegisters = kGroups == 3 ? 160 : 240;
  static constexpr int kQueryBytes = kQueries * D * 2, kKeyBytes = kKeys * D * 2;
  static constexpr int kTiles = kQueryBytes + 2 * kStages * kKeyBytes;  // queries, keys, values; then the rings' barriers
  static constexpr int kBytes = kTileSlack + kTiles + Ring<1>::kBytes + 2 * Ring<kStages>::kBytes;
};

// A running softmax of 64 rows: a thread has two of them.
struct Softmax {
  float top[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};  // of the raw products; sum: the thread's own columns

  // s -> p, and the factors by which what was summed up before must shrink.
  template <int N8>
  __device__ void step(float (&s)[N8][4], float (&shrink)[2], float unit) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float most = top[half];
#pragma unroll
      for (int n = 0; n < N8; ++n) most = fmaxf(most, fmaxf(s[n][2 * half], s[n][2 * half + 1]));
      most = quad_max(most);
      const float base = most == -INFINITY ? 0 : most * unit;  // nothing seen yet: all p are 0, not NaN
      shrink[half] = exp2_fast(top[half] * unit - base);
      top[half] = most;
      float total = 0;
#pragma unroll
      for (int n = 0; n < N8; ++n)
#pragma unroll
        for (int x = 2 * half; x < 2 * half + 2; ++x) total += s[n][x] = exp2_fast(s[n][x] * unit - base);
      sum[half] = sum[half] * shrink[half] + total;
    }
  }
  __device__ void finish() {
    for (float& total : sum) total = quad_sum(total);
  }
  // lse of the thread's rows, of which the first is `row`; p = exp(unit s), in base 2.
  __device__ void write_lse(float* lse, i64 stride, int row, int tokens, float unit) const {
    if (lane() % 4 != 0) return;
#pragma unroll
    for (int half = 0; half < 2; ++half)
      if (row + 8 * half < tokens) lse[(row + 8 * half) * stride] = top[half] * unit * kLn2 + logf(sum[half]);
  }
};

template <int N8>
__device__ inline void hide(float (&s)[N8][4], const Visibility& visible, int row, int k0) {
#pragma unroll
  for (int n = 0; n < N8; ++n)
#pragma unroll
    for (int x = 0; x < 4; ++x)
      if (!visible.sees(row + tile_row(0, x), k0 + tile_column(n, x))) s[n][x] = -INFINITY;
}

template <int D>
__global__ __launch_bounds__(ForwardTiles<D>::kThreads, 1) void forward_kernel(
    bfloat* o, float* lse, const __grid_constant__ CUtensorMap q_map, const __grid_constant__ CUtensorMap k_map,
    const __grid_constant__ CUtensorMap v_map, Heads h, i64 sequences) {
  using Size = ForwardTiles<D>;
  constexpr int kQueries = Size::kQueries, kKeys = Size::kKeys, kStages = Size::kStages;
  constexpr int kMultipliers = Size::kGroups * kWarpgroup;  // threads
  extern __shared__ unsigned char memory[];
  const unsigned qs = aligned_tiles(memory), ks = qs + Size::kQueryBytes, vs = ks + kStages * Size::kKeyBytes;
  const unsigned barriers = qs + Size::kTiles;
  const Ring<1> queries(barriers);
  const Ring<kStages> keys(barriers + Ring<1>::kBytes), values(barriers + Ring<1>::kBytes + Ring<kStages>::kBytes);
  if (threadIdx.x == 0) {
    queries.init(1, kMultipliers), keys.init(1, kMultipliers), values.init(1, kMultipliers);
    barriers_are_made();
  }
  __syncthreads();

  const int tokens = h.visible.tokens, tiles = (tokens + kQueries - 1) / kQueries;
  const i64 works = sequences * h.heads * tiles;
  const auto key_tile = [&](int n) { return ks + Ring<kStages>::place(n) * Size::kKeyBytes; };
  const auto value_tile = [&](int n) { return vs + Ring<kStages>::place(n) * Size::kKeyBytes; };
  int round = 0, n = 0;  // fillings: of the queries' ring, and of the two others
  if (threadIdx.x < kWarpgroup) {
    give_registers<24>();
    if (threadIdx.x == 0) {
      for (i64 index; (index = dealt(round)) < works; ++round) {
        const QueryWork work(h, index, tiles, kQueries, kKeys, sequences);
        queries.await_empty(round);
        arrive_expecting(queries.full_at(round), Size::kQueryBytes);
        copy_tile<D>(qs, q_map, kQueries, work.head, work.q0, work.sequence, queries.full_at(round));
        for (int k0 = work.begin; k0 < work.end; k0 += kKeys, ++n) {
          keys.await_empty(n);
          arrive_expecting(keys.full_at(n), Size::kKeyBytes);
          copy_tile<D>(key_tile(n), k_map, kKeys, work.kv_head, k0, work.sequence, keys.full_at(n));
          values.await_empty(n);
          arrive_expecting(values.full_at(n), Size::kKeyBytes);
          copy_tile<D>(value_tile(n), v_map, kKeys, work.kv_head, k0, work.sequence, values.full_at(n));
        }
      }
    }
  } else {
    take_registers<Size::kRegisters>();
    const float unit = h.scale * kLog2e;
    const int group = static_cast<int>(threadIdx.x) / kWarpgroup - 1;
    const int warp_row = static_cast<int>(threadIdx.x) % kWarpgroup / kWarp * 16;
    for (i64 index; (index = dealt(round)) < works; ++round) {
      const QueryWork work(h, index, tiles, kQueries, kKeys, sequences);
      // The warpgroup's own rows, and the keys that these see; other tiles it only lets pass.
      const int q0 = work.q0 + 64 * group, row = q0 + warp_row;
      const int end = q0 < tokens ? h.visible.high(min(q0 + 64, tokens) - 1) : work.begin, begin = h.visible.low(q0);
      Softmax softmax;
      Tile<1, D> out;
      Sums<kKeys> s;
      float shrink[2];
      unsigned p[kKeys / 16][4];
      const auto issue_scores = [&] {
        keys.await_full(n);
        products_begin();
        multiply_tiles<D, kKeys>(s, qs, kQueries, 64 * group, key_tile(n));
        products_issued();
      };
      const auto issue_values = [&](int at, int add) {
        values.await_full(at);
        products_begin();
        multiply_scores<D, kKeys / 8>(out[0], p, value_tile(at), add);
        products_issued();
      };
      const auto soften = [&](int k0) {
        keys.release(n);
        if (!h.visible.all(q0, 64, k0, kKeys)) hide(s, h.visible, row, k0);
        softmax.step(s, shrink, unit);
      };
      const auto pack = [&] {
#pragma unroll
        for (int k = 0; k < kKeys / 16; ++k) as_factor(p[k], s[2 * k], s[2 * k + 1]);
      };
      const auto let_pass = [&] {
        keys.await_full(n), keys.release(n);
        values.await_full(n), values.release(n);
      };

      int k0 = work.begin;
      for (; k0 < end && k0 + kKeys <= begin; k0 += kKeys, ++n) let_pass();
      queries.await_full(round);
      if (k0 < end) {
        const int first = n;
        issue_scores();
        products_done<0>(s);
        soften(k0);
        pack();
        for (k0 += kKeys, ++n; k0 < end; k0 += kKeys, ++n) {
          issue_scores();
          issue_values(n - 1, n - 1 > first);
          products_done<1>(s);
          soften(k0);
          products_done<0>(out[0]);
          values.release(n - 1);
#pragma unroll
          for (int c = 0; c < D / 8; ++c)
#pragma unroll
            for (int x = 0; x < 4; ++x) out[0][c][x] *= shrink[x / 2];
          pack();
        }
        queries.release(round);
        issue_values(n - 1, n - 1 > first);
        products_done<0>(out[0]);
        values.release(n - 1);
        softmax.finish();
        const i64 row0 = static_cast<i64>(work.sequence) * tokens, ldq = h.q_stride();
        softmax.write_lse(lse + row0 * h.heads + work.head, h.heads, row + lane() / 4, tokens, unit);
        write_rows(o + row0 * ldq + work.head * h.d, ldq, false, row, tokens, h.d, out,
                   [&](int, int half) { return 1 / softmax.sum[half]; });
      } else {
        queries.release(round);
      }
      for (; k0 < work.end; k0 += kKeys, ++n) let_pass();
    }
  }
}

}  // namespace
}  // namespace hopper

void hopper_attention_forward(cudaStream_t stream, bfloat* o, float* lse, const bfloat* q, const bfloat* k, const bfloat* v,
                              const AttentionShape& shape) {
  const auto run = [&](auto D) {
    using Size = hopper::ForwardTiles<D()>;
    const unsigned blocks = hopper::standing_blocks(shape.batch * shape.heads * divide_up(shape.tokens, Size::kQueries));
    launch(hopper::forward_kernel<D()>, blocks, Size::kThreads, Size::kBytes, stream, o, lse,
           hopper::tensor_map(q, shape, shape.heads, Size::kQueries), hopper::tensor_map(k, shape, shape.kv_heads, Size::kKeys),
           hopper::tensor_map(v, shape, shape.kv_heads, Size::kKeys), Heads(shape), shape.batch);
  };
  if (shape.head_dim == 64) run(std::integral_constant<int, 64>{});
  else run(std::integral_constant<int, 128>{});
}

}  // namespace signround::cuda
