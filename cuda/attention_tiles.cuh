// What the attention kernels of both directions share: the mask, the order of the tiles, tiles of bfloat in shared memory with
// products of them on tensor cores, and for everything else tiles of float with a group of threads to a row.
#pragma once
#include "cuda/attention.cuh"
#include "cuda/common.cuh"

namespace signround::cuda {

inline constexpr float kLog2e = 1.4426950408889634f, kLn2 = 0.6931471805599453f;
inline constexpr int kMaxHeadDim = 256;

// Key j is visible to query i iff low(i) <= j < high(i); both grow with i.
struct Visibility {
  int tokens, window;
  bool causal;
  explicit Visibility(const AttentionShape& s)
      : tokens(static_cast<int>(s.tokens)), window(static_cast<int>(std::min(s.window, s.tokens))), causal(s.causal) {}
  __device__ int low(int i) const { return window > 0 ? max(0, i - window + 1) : 0; }
  __device__ int high(int i) const { return causal ? min(i + 1, tokens) : tokens; }
  __device__ bool sees(int i, int j) const { return i < tokens && low(i) <= j && j < high(i); }
  // Every key in [j, j + nj) is visible to every query in [i, i + ni).
  __device__ bool all(int i, int ni, int j, int nj) const {
    return i + ni <= tokens && low(i + ni - 1) <= j && j + nj <= high(i);
  }
};

// One launch: what all kernels are told. Scores: x = scale * s or cap * tanh(scale * s / cap) or, with ALiBi, scale * (s + bias);
// p = exp2(x * log2(e) - ...).
struct Heads {
  int heads, kv_heads, d;
  float scale, cap;
  bool alibi, falcon_alibi;
  Visibility visible;
  explicit Heads(const AttentionShape& s)
      : heads(static_cast<int>(s.heads)), kv_heads(static_cast<int>(s.kv_heads)), d(static_cast<int>(s.head_dim)), scale(s.scale),
        cap(s.softcap), alibi(s.alibi), falcon_alibi(s.falcon_alibi), visible(s) {}
  __device__ i64 q_stride() const { return static_cast<i64>(heads) * d; }
  __device__ i64 k_stride() const { return static_cast<i64>(kv_heads) * d; }
  __device__ int kv_of(int head) const { return head / (heads / kv_heads); }
};

// What ALiBi adds to the products of a head: slope / scale * (j - i), or Falcon's. Without ALiBi the slope is 0.
struct Bias {
  float slope;
  bool falcon;
  __device__ float operator()(int i, int j) const { return falcon ? falcon_bias(slope, j) : slope * static_cast<float>(j - i); }
};
__device__ inline Bias bias_of(const Heads& h, int head) {
  const double slope = h.alibi ? exp2(alibi_exponent(head, h.heads)) : 0;
  return {static_cast<float>(h.falcon_alibi ? slope : slope / h.scale), h.falcon_alibi};
}

// A block's work: a tile of one head of one sequence. Heads are taken 16 at a time, so that what the blocks in flight read again
// and again stays in the L2 cache; of these, tile 0 of all heads comes first, then tile 1.
struct Task {
  int tile, head;
  i64 sequence;
  __device__ Task(int tiles, int heads, i64 sequences) {
    constexpr i64 kTogether = 16;
    const i64 pairs = sequences * heads, first = blockIdx.x / (kTogether * tiles) * kTogether;
    const i64 together = min(kTogether, pairs - first), rest = blockIdx.x - first * tiles, pair = first + rest % together;
    tile = static_cast<int>(rest / together), head = static_cast<int>(pair % heads), sequence = pair / heads;
  }
};

inline unsigned tasks(i64 tiles, i64 heads, i64 sequences) { return static_cast<unsigned>(tiles * heads * sequences); }

// Kernels here need more shared memory than the 48 KiB that a launch may ask for unannounced.
template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), unsigned blocks, int threads, int shared_bytes, cudaStream_t stream,
            const Arguments&... arguments) {
  cuda_check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes), "attention");
  kernel<<<blocks, threads, shared_bytes, stream>>>(arguments...);
}

// ---- bfloat: four warps; the rows of a product are split between them, 16 M each.
inline constexpr int kTileThreads = 128;

// Rows of D elements in shared memory such that eight rows' 16-byte pieces at the same column lie in different banks: pieces
// change places within 128 bytes, or where D is no multiple of 64, rows are 16 bytes longer.
template <int D>
struct Rows {
  static constexpr bool swizzled = D % 64 == 0;
  static constexpr int stride = swizzled ? D : D + 8, bytes = stride * static_cast<int>(sizeof(bfloat));
  // In bytes; column: a multiple of 8.
  __device__ static unsigned offset(int row, int column) {
    const int piece = swizzled ? column / 8 ^ row % 8 : column / 8;
    return static_cast<unsigned>(row * bytes + piece * 16);
  }
};

__device__ inline unsigned shared_address(const void* p) { return static_cast<unsigned>(__cvta_generic_to_shared(p)); }

// Bytes from memory to shared memory behind the thread's back; zeros without touching memory if not `there`.
template <int Bytes>
__device__ inline void copy_async(unsigned to, const void* from, bool there) {
  static_assert(Bytes == 16 || Bytes == 4);
  const int n = there ? Bytes : 0;
  if constexpr (Bytes == 16)
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(n) : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(from), "r"(n) : "memory");
}
// All copies of this thread have arrived, and then those of all threads.
__device__ inline void arrived() {
  asm volatile("cp.async.wait_all;" ::: "memory");
  __syncthreads();
}

// Rows first .. first + N - 1 of a head (row 0 at `from`, d columns); rows from `tokens` on and columns from d on become 0.
template <int D, int N>
__device__ inline void copy_rows(unsigned to, const bfloat* from, i64 stride, int first, int tokens, int d) {
  constexpr int kPieces = D / 8;
  const int thread = static_cast<int>(threadIdx.x);
  if constexpr (kTileThreads % kPieces == 0) {  // a thread keeps to its column
    constexpr int kStep = kTileThreads / kPieces;
    const int row = thread / kPieces, column = thread % kPieces * 8, left = column < d ? tokens - first - row : 0;
    const bfloat* at = from + (first + row) * stride + column;
#pragma unroll
    for (int x = 0; x < N; x += kStep, at += kStep * stride)
      copy_async<16>(to + Rows<D>::offset(row + x, column), x < left ? at : from, x < left);
  } else {
#pragma unroll
    for (int x = 0; x < (N * kPieces + kTileThreads - 1) / kTileThreads; ++x) {
      const int i = x * kTileThreads + thread, row = i / kPieces, column = i % kPieces * 8;
      if (row >= N) break;
      const bool there = first + row < tokens && column < d;
      copy_async<16>(to + Rows<D>::offset(row, column), there ? from + (first + row) * stride + column : from, there);
    }
  }
}

__device__ inline void load_matrices(unsigned (&x)[4], unsigned address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3]) : "r"(address) : "memory");
}
__device__ inline void load_transposed(unsigned (&x)[4], unsigned address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3]) : "r"(address) : "memory");
}
// c[16,8] += a[16,16] b[16,8]
__device__ inline void multiply_add(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// A warp's part of a product: 16 M rows in pieces of 16 x 8. Of a piece a thread holds [0], [1]: row g, columns 2t and 2t + 1;
// [2], [3]: row g + 8, the same columns; g = lane / 4, t = lane % 4.
template <int M, int N>
using Tile = float[M][N / 8][4];
__device__ inline int tile_row(int m, int x) { return 16 * m + lane() / 4 + x / 2 * 8; }
__device__ inline int tile_column(int n, int x) { return 8 * n + lane() % 4 * 2 + x % 2; }

template <int M, int N>
__device__ inline void clear(float (&c)[M][N][4]) {
#pragma unroll
  for (int m = 0; m < M; ++m)
#pragma unroll
    for (int n = 0; n < N; ++n)
#pragma unroll
      for (int x = 0; x < 4; ++x) c[m][n][x] = 0;
}

// c = a b^T: rows of D at `a` (the warp's own) and at `b`.
template <int D, int M, int N8>
__device__ inline void multiply_rows(float (&c)[M][N8][4], unsigned a, unsigned b) {
  const int l = lane();
  clear(c);
#pragma unroll
  for (int k = 0; k < D; k += 16) {
    unsigned left[M][4];
#pragma unroll
    for (int m = 0; m < M; ++m) load_matrices(left[m], a + Rows<D>::offset(16 * m + l % 16, k + l / 16 * 8));
#pragma unroll
    for (int n = 0; n < N8; n += 2) {
      unsigned right[4];  // of columns n and of columns n + 1, each for k .. k + 7 and k + 8 .. k + 15
      load_matrices(right, b + Rows<D>::offset(8 * n + l / 16 * 8 + l % 8, k + l / 8 % 2 * 8));
#pragma unroll
      for (int m = 0; m < M; ++m) {
        multiply_add(c[m][n], left[m], right[0], right[1]);
        multiply_add(c[m][n + 1], left[m], right[2], right[3]);
      }
    }
  }
}

__device__ inline unsigned packed(float low, float high) {
  const __nv_bfloat162 x = __floats2bfloat162_rn(low, high);
  return reinterpret_cast<const unsigned&>(x);
}

// c += p b: p as a product left it, rounded to bfloat (a left factor is held in just that way); 8 K8 rows of D at `b`.
template <int D, int M, int K8>
__device__ inline void multiply_tile(float (&c)[M][D / 8][4], const float (&p)[M][K8][4], unsigned b) {
  const int l = lane();
#pragma unroll
  for (int k = 0; k < K8; k += 2) {
    unsigned left[M][4];
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
      for (int x = 0; x < 4; ++x) left[m][x] = packed(p[m][k + x / 2][x % 2 * 2], p[m][k + x / 2][x % 2 * 2 + 1]);
#pragma unroll
    for (int n = 0; n < D / 8; n += 2) {
      unsigned right[4];
      load_transposed(right, b + Rows<D>::offset(8 * k + l % 16, 8 * n + l / 16 * 8));
#pragma unroll
      for (int m = 0; m < M; ++m) {
        multiply_add(c[m][n], left[m], right[0], right[1]);
        multiply_add(c[m][n + 1], left[m], right[2], right[3]);
      }
    }
  }
}

// to[row] (=|+=) c[row] * factor(m, half) for rows first .. of `tokens` rows; half: 0 for the thread's row g, 1 for g + 8.
template <int M, int N8, class F>
__device__ inline void write_rows(bfloat* to, i64 stride, bool add, int first, int tokens, int d, const float (&c)[M][N8][4],
                                  F factor) {
#pragma unroll
  for (int m = 0; m < M; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = first + tile_row(m, 2 * half);
      if (row >= tokens) continue;
      const float f = factor(m, half);
#pragma unroll
      for (int n = 0; n < N8; ++n) {
        const int column = tile_column(n, 0);
        if (column < d) accumulate<2>(to + row * stride + column, add, [&](int x) { return c[m][n][2 * half + x] * f; });
      }
    }
}

// s += bias;  query(m, n, x), key(m, n, x): the positions that an element of the tile belongs to.
template <int M, int N8, class Query, class Key>
__device__ inline void add_bias(float (&s)[M][N8][4], const Bias& bias, Query query, Key key) {
  const auto add = [&](auto falcon) {  // asked once a tile, not once an element
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
      for (int n = 0; n < N8; ++n)
#pragma unroll
        for (int x = 0; x < 4; ++x) s[m][n][x] += Bias{bias.slope, falcon()}(query(m, n, x), key(m, n, x));
  };
  if (bias.falcon) add(std::true_type{});
  else add(std::false_type{});
}

// Of the four threads that hold a row of a product.
__device__ inline float quad_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(~0u, x, 1));
  return fmaxf(x, __shfl_xor_sync(~0u, x, 2));
}
__device__ inline float quad_sum(float x) {
  x += __shfl_xor_sync(~0u, x, 1);
  return x + __shfl_xor_sync(~0u, x, 2);
}

__device__ inline float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
// 1 - 2 / (exp(2 x) + 1), good to some 1e-7 absolutely.
__device__ inline float tanh_fast(float x) { return 1 - __fdividef(2, exp2_fast(2 * kLog2e * x) + 1); }

inline void check_head_dim(const AttentionShape& s) {
  check(s.head_dim > 0 && s.head_dim <= kMaxHeadDim, ErrorKind::bad_input, "no CUDA attention kernel for head_dim ", s.head_dim,
        ": at most ", kMaxHeadDim);
}
// Rows of tiles for tensor cores are copied 16 bytes at a time. No family has ALiBi and longer heads than 128.
inline bool fits_tiles(const AttentionShape& s) { return s.head_dim % 8 == 0 && (!s.alibi || s.head_dim <= 128); }

// f(head size D that a kernel is built for, whether with ALiBi): the smallest that holds d columns.
template <class F>
void with_head_dim(const AttentionShape& s, F f) {
  const i64 d = s.head_dim;
  constexpr std::integral_constant<int, 64> k64;
  constexpr std::integral_constant<int, 128> k128;
  constexpr std::integral_constant<int, kMaxHeadDim> most;
  if (s.alibi) {
    if (d <= 64) f(k64, std::true_type{});
    else f(k128, std::true_type{});
  } else if (d <= 64) f(k64, std::false_type{});
  else if (d <= 80) f(std::integral_constant<int, 80>{}, std::false_type{});
  else if (d <= 96) f(std::integral_constant<int, 96>{}, std::false_type{});
  else if (d <= 128) f(k128, std::false_type{});
  else f(most, std::false_type{});
}

// ---- any type and head size, in float: kOwners rows to a block of kBlock threads, eight neighbouring threads to a row. Each
// takes two of kOthers columns of scores, and of a row of d every eighth element. Nothing here is fast; it is there to check the
// rest by, and for bfloat of head sizes that tiles do not take.
inline constexpr int kTeam = 8, kOwners = kBlock / kTeam, kOthers = 2 * kTeam, kShare = kMaxHeadDim / kTeam;

inline int float_rows_bytes(i64 rows, i64 d) { return static_cast<int>(rows * (d + 1) * static_cast<i64>(sizeof(float))); }

template <class T>
__device__ inline void copy_rows(float* to, const T* from, i64 stride, int first, int n, int tokens, int d) {
  for (int i = static_cast<int>(threadIdx.x); i < n * d; i += kBlock) {
    const int row = i / d, column = i % d;
    to[row * (d + 1) + column] = first + row < tokens ? widened(from[(first + row) * stride + column]) : 0;
  }
}
__device__ inline float product(const float* a, const float* b, int d) {
  float sum = 0;
  for (int x = 0; x < d; ++x) sum += a[x] * b[x];
  return sum;
}
// The thread's share of c += sum_j p[j] b[j], where the team's threads hold p.
__device__ inline void multiply_share(float (&c)[kShare], const float (&p)[2], const float* b, int d) {
  const int me = lane() % kTeam;
#pragma unroll
  for (int j = 0; j < kOthers; ++j) {
    const float pj = __shfl_sync(~0u, p[j / kTeam], j % kTeam, kTeam);
#pragma unroll
    for (int x = 0; x < kShare; ++x)
      if (x * kTeam + me < d) c[x] += pj * b[j * (d + 1) + x * kTeam + me];
  }
}
template <class T>
__device__ inline void write_share(T* to, bool add, const float (&c)[kShare], float factor, int d) {
  const int me = lane() % kTeam;
#pragma unroll
  for (int x = 0; x < kShare; ++x)
    if (x * kTeam + me < d) accumulate<1>(to + x * kTeam + me, add, [&](int) { return c[x] * factor; });
}

}  // namespace signround::cuda
