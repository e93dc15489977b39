// Attention on Hopper: hopper_attention_fwd.cu, hopper_attention_bwd.cu. The formulas and the ownership of sums are those of
// attention_fwd.cu and attention_bwd.cu; what differs is who does what. A block stays on its multiprocessor and takes one tile
// after another. One of its warps lets the copy engine bring tiles in, some steps ahead; the others, in warpgroups of 64 rows
// each, multiply them by wgmma, so that one warpgroup's exponentials run beside the products of another.
#pragma once
#include "cuda/attention_tiles.cuh"
#include "cuda/hopper.cuh"
#include "cuda/hopper_attention.h"

namespace signround::cuda {
namespace hopper {

// What copy_box() is told of a tensor [batch, tokens, heads, d]: boxes of `rows` rows.
CUtensorMap tensor_map(const bfloat* data, const AttentionShape& shape, i64 heads, int rows);

// One block a multiprocessor: the number of these, or of tiles if there are fewer.
unsigned standing_blocks(i64 tiles);

// The index of a block's work in its round, of all works sorted by size: dealt out in turn, from the first block to the last and
// then back, so that all have about as much to do.
__device__ inline i64 dealt(int round) {
  const int place = round % 2 == 0 ? blockIdx.x : gridDim.x - 1 - blockIdx.x;
  return static_cast<i64>(round) * gridDim.x + place;
}

// A tile of queries of one head, and the keys that these see. The last queries see most keys and come first.
struct QueryWork {
  int head, kv_head, sequence, q0, begin, end;  // begin: of the first key's tile
  __device__ QueryWork(const Heads& h, i64 index, int tiles, int queries, int keys, i64 sequences) {
    const i64 pairs = sequences * h.heads;
    head = static_cast<int>(index % pairs) % h.heads, kv_head = h.kv_of(head);
    sequence = static_cast<int>(index % pairs) / h.heads;
    q0 = (tiles - 1 - static_cast<int>(index / pairs)) * queries;
    begin = h.visible.low(q0) / keys * keys;
    end = h.visible.high(min(q0 + queries, h.visible.tokens) - 1);
  }
};

// A thread's part of 64 x 16 scores, as sums -> the same as a left factor, rounded.
__device__ inline void as_factor(unsigned (&a)[4], const float (&low)[4], const float (&high)[4]) {
  a[0] = packed(low[0], low[1]), a[1] = packed(low[2], low[3]), a[2] = packed(high[0], high[1]), a[3] = packed(high[2], high[3]);
}

// c (+)= p b: p [64, 8 K8] rounded to bfloat in registers, b: K8*8 rows of N columns in shared memory.
template <int N, int K8>
__device__ inline void multiply_scores(float (&c)[N / 8][4], const unsigned (&p)[K8 / 2][4], unsigned b, int add) {
#pragma unroll
  for (int k = 0; k < K8 / 2; ++k) multiply_depth<N>(c, p[k], depth_of(b, 8 * K8, 16 * k), add || k > 0);
}

// s = a b^T: 64 rows from `first` on of a's `rows`, and all N rows of b; D columns each.
template <int D, int N>
__device__ inline void multiply_tiles(float (&s)[N / 8][4], unsigned a, int rows, int first, unsigned b) {
#pragma unroll
  for (int k = 0; k < D; k += 16) multiply_rows<N>(s, rows_of(a, rows, first, k), rows_of(b, N, 0, k), k > 0);
}

}  // namespace hopper
}  // namespace signround::cuda
