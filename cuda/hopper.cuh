// The words of Hopper (sm_90a) that C++ has none for: barriers that count bytes, tiles copied by the copy engine, products of a
// whole warpgroup. Source: PTX ISA 9.0, chapters mbarrier, cp.async.bulk.tensor, wgmma. Device code for sm_90a alone.
#pragma once
#include <cuda.h>

#include "cuda/common.cuh"

namespace signround::cuda::hopper {

inline constexpr int kWarpgroup = 128;  // threads that multiply together: four warps

// ---- barriers in shared memory, by address. A phase ends when all arrivals and all announced bytes are there; phases have
// parities 0, 1, 0, ... and waiting for parity 1 of a fresh barrier returns at once.
__device__ inline void barrier_init(unsigned barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
// After the inits and before __syncthreads(): the copy engine sees the barriers too.
__device__ inline void barriers_are_made() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
__device__ inline void arrive(unsigned barrier) {
  asm volatile("{ .reg .b64 state; mbarrier.arrive.shared::cta.b64 state, [%0]; }" ::"r"(barrier) : "memory");
}
__device__ inline void arrive_expecting(unsigned barrier, int bytes) {
  asm volatile("{ .reg .b64 state; mbarrier.arrive.expect_tx.shared::cta.b64 state, [%0], %1; }" ::"r"(barrier), "r"(bytes)
               : "memory");
}
__device__ inline void wait(unsigned barrier, int parity) {
  asm volatile(
      "{ .reg .pred done;\n"
      "again: mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@done bra.uni there;\n"
      "bra.uni again;\n"
      "there: }" ::"r"(barrier), "r"(parity) : "memory");
}

// A ring of `count` places that are filled and emptied in turn: the n-th filling, n = 0, 1, ..., uses place(n).
template <int count>
struct Ring {
  unsigned full, empty;  // [count] barriers each

  static constexpr int kBytes = 2 * count * 8;
  __device__ explicit Ring(unsigned barriers) : full(barriers), empty(barriers + count * 8) {}
  __device__ void init(int fillers, int emptiers) const {
    for (int i = 0; i < count; ++i) barrier_init(full + i * 8, fillers), barrier_init(empty + i * 8, emptiers);
  }
  __device__ static int place(int n) { return n % count; }
  __device__ static int parity(int n) { return n / count % 2; }
  __device__ unsigned full_at(int n) const { return full + place(n) * 8; }
  __device__ unsigned empty_at(int n) const { return empty + place(n) * 8; }
  __device__ void await_empty(int n) const { wait(empty_at(n), parity(n) ^ 1); }
  __device__ void await_full(int n) const { wait(full_at(n), parity(n)); }
  // A thread of the emptiers is done with the n-th filling. One arrival for a whole warp would be no quicker, and racecheck
  // would not see what it orders.
  __device__ void release(int n) const { arrive(empty_at(n)); }
};

// Of a warp: the filling of a ring that products under way still read, if any.
template <int count>
struct InUse {
  const Ring<count>& ring;
  int filling = -1;

  __device__ void release() {
    if (filling >= 0) ring.release(filling);
    filling = -1;
  }
  __device__ void change_to(int n) {
    release();
    filling = n;
  }
};

// ---- the copy engine: a box of a tensor [batch, tokens, heads, d] to shared memory, its bytes counted by a barrier. A box is 64
// columns of one head of some rows; what lies beyond a sequence's rows arrives as 0. A row is 128 bytes there, and its 16-byte
// pieces change places so that eight rows' pieces of one column lie in different banks (swizzle of 128 bytes).
__device__ inline void copy_box(unsigned to, const CUtensorMap& from, int column, int head, int row, int sequence,
                                unsigned barrier) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%2, %3, %4, %5}], [%6];" ::"r"(to), "l"(&from), "r"(column), "r"(head), "r"(row), "r"(sequence), "r"(barrier)
      : "memory");
}
// All columns of a tile of `rows` rows: D/64 boxes, one behind the other.
template <int D>
__device__ inline void copy_tile(unsigned to, const CUtensorMap& from, int rows, int head, int row, int sequence,
                                 unsigned barrier) {
#pragma unroll
  for (int column = 0; column < D; column += 64)
    copy_box(to + column / 64 * rows * 128, from, column, head, row, sequence, barrier);
}

// Swizzles repeat every 1024 bytes: where tiles may begin in a block's memory, which needs kTileSlack bytes more for that.
inline constexpr int kTileSlack = 1024;
__device__ inline unsigned aligned_tiles(const void* memory) {
  return (static_cast<unsigned>(__cvta_generic_to_shared(memory)) + kTileSlack - 1) / kTileSlack * kTileSlack;
}

// ---- registers of a warp, from a common pool of the block: 24, 32, ..., 240.
template <int registers>
__device__ inline void take_registers() { asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(registers)); }
template <int registers>
__device__ inline void give_registers() { asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(registers)); }

// ---- products of a warpgroup:  c[64, N] += a[64, 16] b[16, N],  issued and not awaited.
// A factor in shared memory is told by a descriptor: address, and two strides in units of 16 bytes, of which `stride` is that of
// eight rows of 128 bytes, and `leading` that of 64 columns where rows are longer. The last bits: swizzle of 128 bytes.
__device__ inline u64 descriptor(unsigned address, unsigned leading = 1) {
  constexpr u64 kStride = 1024 / 16, kSwizzle128 = u64{1} << 62;
  return kSwizzle128 | kStride << 32 | static_cast<u64>(leading) << 16 | (address & 0x3FFFF) >> 4;
}
// Rows first .. of a tile that has D columns and `rows` rows in all: 16 columns from `column` on as the depth of a product.
__device__ inline u64 rows_of(unsigned tile, int rows, int first, int column) {
  return descriptor(tile + column / 64 * rows * 128 + first * 128 + column % 64 * 2);
}
// Rows row .. row + 15 as the depth of a product, all columns as its width.
__device__ inline u64 depth_of(unsigned tile, int rows, int row) {
  return descriptor(tile + row * 128, static_cast<unsigned>(rows * 128 / 16));
}

template <int N>
using Sums = float[N / 8][4];  // a thread's part, as attention_tiles.cuh's Tile<1, N>

#define SIGNROUND_FOUR(c, i) "+f"(c[i][0]), "+f"(c[i][1]), "+f"(c[i][2]), "+f"(c[i][3])
#define SIGNROUND_SUMS64(c)                                                                                             \
  SIGNROUND_FOUR(c, 0), SIGNROUND_FOUR(c, 1), SIGNROUND_FOUR(c, 2), SIGNROUND_FOUR(c, 3), SIGNROUND_FOUR(c, 4),         \
      SIGNROUND_FOUR(c, 5), SIGNROUND_FOUR(c, 6), SIGNROUND_FOUR(c, 7)
#define SIGNROUND_SUMS128(c)                                                                                            \
  SIGNROUND_SUMS64(c), SIGNROUND_FOUR(c, 8), SIGNROUND_FOUR(c, 9), SIGNROUND_FOUR(c, 10), SIGNROUND_FOUR(c, 11),        \
      SIGNROUND_FOUR(c, 12), SIGNROUND_FOUR(c, 13), SIGNROUND_FOUR(c, 14), SIGNROUND_FOUR(c, 15)
#define SIGNROUND_NAMES64                                                                                               \
  "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, "     \
  "%24, %25, %26, %27, %28, %29, %30, %31}"
#define SIGNROUND_NAMES128                                                                                              \
  "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, "     \
  "%24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, "      \
  "%46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}"

// b's N rows hold its depth (as a's rows do): c = a b^T. add 0: c is set.
template <int N>
__device__ inline void multiply_rows(float (&c)[N / 8][4], u64 a, u64 b, int add) {
  static_assert(N == 64 || N == 128);
  if constexpr (N == 64)
    asm volatile("{ .reg .pred add; setp.ne.b32 add, %34, 0; wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
                 SIGNROUND_NAMES64 ", %32, %33, add, 1, 1, 0, 0; }" : SIGNROUND_SUMS64(c) : "l"(a), "l"(b), "r"(add));
  else
    asm volatile("{ .reg .pred add; setp.ne.b32 add, %66, 0; wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
                 SIGNROUND_NAMES128 ", %64, %65, add, 1, 1, 0, 0; }" : SIGNROUND_SUMS128(c) : "l"(a), "l"(b), "r"(add));
}
// b's rows are its depth: c = a b. a: a thread's part of 16 columns, as mma.sync has it.
template <int N>
__device__ inline void multiply_depth(float (&c)[N / 8][4], const unsigned (&a)[4], u64 b, int add) {
  static_assert(N == 64 || N == 128);
  if constexpr (N == 64)
    asm volatile("{ .reg .pred add; setp.ne.b32 add, %37, 0; wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
                 SIGNROUND_NAMES64 ", {%32, %33, %34, %35}, %36, add, 1, 1, 1; }"
                 : SIGNROUND_SUMS64(c) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
  else
    asm volatile("{ .reg .pred add; setp.ne.b32 add, %69, 0; wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
                 SIGNROUND_NAMES128 ", {%64, %65, %66, %67}, %68, add, 1, 1, 1; }"
                 : SIGNROUND_SUMS128(c) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
}

#undef SIGNROUND_FOUR
#undef SIGNROUND_SUMS64
#undef SIGNROUND_SUMS128
#undef SIGNROUND_NAMES64
#undef SIGNROUND_NAMES128

// Before the first product after registers it uses were written.
__device__ inline void products_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
// What was issued since the last call is one group.
__device__ inline void products_issued() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// All but the last `pending` groups are done; c is theirs and may be read from here on.
template <int pending, int N8>
__device__ inline void products_done(float (&c)[N8][4]) {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(pending) : "memory");
#pragma unroll
  for (int n = 0; n < N8; ++n)
#pragma unroll
    for (int x = 0; x < 4; ++x) asm volatile("" : "+f"(c[n][x])::"memory");
}

}  // namespace signround::cuda::hopper
