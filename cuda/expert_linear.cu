// The linear of each expert, as one kernel: which rows an expert has is known on the device alone, so the grid has room for any
// number of them, and a block finds its tile from the bounds.
//   y = x w[e]^T   (forward),   dx = dy w[e]   (back_x),   dw[e] = dy^T x   (back_w)
// A block computes a tile of C = A B with f32 sums over k in order: the next slices of A and B are on their way to registers
// while those in shared memory are multiplied, bf16 by tensor cores, f32 by plain multiply-adds.
#include <mma.h>

#include "cuda/backend.h"

namespace signround::cuda {
namespace {

enum class Kind { forward, back_x, back_w };
constexpr int kThreads = 256;

// A slice [rows, cols] of a matrix on its way to shared memory; zero beyond the matrix. V elements at a time.
template <class T, int rows, int cols, int V>
struct Slice {
  static constexpr int kStride = cols + 16 / static_cast<int>(sizeof(T));  // rows begin in other banks
  static constexpr int kPacks = rows * cols / V / kThreads;
  static_assert(kPacks * V * kThreads == rows * cols);
  Pack<T, V> own[kPacks];

  template <class From>
  __device__ void fetch(const From* from, i64 stride, i64 rows_left, i64 cols_left) {
#pragma unroll
    for (int p = 0; p < kPacks; ++p) {
      const int at = (p * kThreads + static_cast<int>(threadIdx.x)) * V, row = at / cols, col = at % cols;
      const bool inside = row < rows_left && col < cols_left;
      if (inside) {
        const Pack<From, V> in = load<V>(from + row * stride + col);
        if constexpr (std::is_same_v<T, From>) {
          own[p] = in;
        } else {
#pragma unroll
          for (int v = 0; v < V; ++v) own[p].x[v] = narrowed<T>(widened(in.x[v]));
        }
      } else {
#pragma unroll
        for (int v = 0; v < V; ++v) own[p].x[v] = narrowed<T>(0.0f);
      }
    }
  }
  __device__ void put(T* shared) const {
#pragma unroll
    for (int p = 0; p < kPacks; ++p) {
      const int at = (p * kThreads + static_cast<int>(threadIdx.x)) * V;
      store<V>(shared + at / cols * kStride + at % cols, own[p]);
    }
  }
};

// The sums of a tile. A flipped factor lies as its transpose. In the end f(row, col, sums, n) for n neighbours of a row at a
// time.
template <class T, bool a_flipped, bool b_flipped>
struct Sums;

template <bool a_flipped, bool b_flipped>
struct Sums<bfloat, a_flipped, b_flipped> {
  static constexpr int m = 128, n = 128, k = 32, kRows = 2, kCols = 4;  // eight warps of 32 x 64, in tiles of 16
  static constexpr int kRoom = kThreads / kWarp * 256;  // floats of shared memory that finish() wants
  template <bool flipped>
  using Layout = std::conditional_t<flipped, nvcuda::wmma::col_major, nvcuda::wmma::row_major>;
  nvcuda::wmma::fragment<nvcuda::wmma::accumulator, 16, 16, 16, float> sum[kRows][kCols];

  static __device__ int first_row() { return static_cast<int>(threadIdx.x) / kWarp / 2 * 32; }
  static __device__ int first_col() { return static_cast<int>(threadIdx.x) / kWarp % 2 * 64; }
  __device__ void clear() {
    for (auto& row : sum)
      for (auto& tile : row) nvcuda::wmma::fill_fragment(tile, 0.0f);
  }
  __device__ void add(const bfloat* a, int a_stride, const bfloat* b, int b_stride) {
#pragma unroll
    for (int at = 0; at < k; at += 16) {
      nvcuda::wmma::fragment<nvcuda::wmma::matrix_a, 16, 16, 16, bfloat, Layout<a_flipped>> left[kRows];
      nvcuda::wmma::fragment<nvcuda::wmma::matrix_b, 16, 16, 16, bfloat, Layout<b_flipped>> right[kCols];
      for (int i = 0; i < kRows; ++i) {
        const int row = first_row() + 16 * i;
        nvcuda::wmma::load_matrix_sync(left[i], a + (a_flipped ? at * a_stride + row : row * a_stride + at), a_stride);
      }
      for (int j = 0; j < kCols; ++j) {
        const int col = first_col() + 16 * j;
        nvcuda::wmma::load_matrix_sync(right[j], b + (b_flipped ? col * b_stride + at : at * b_stride + col), b_stride);
      }
      for (int i = 0; i < kRows; ++i)
        for (int j = 0; j < kCols; ++j) nvcuda::wmma::mma_sync(sum[i][j], left[i], right[j], sum[i][j]);
    }
  }
  template <class F>
  __device__ void finish(float* room, F f) {
    float* own = room + threadIdx.x / kWarp * 256;
    const int row = first_row() + lane() / 2, col = first_col() + lane() % 2 * 8;
#pragma unroll
    for (int i = 0; i < kRows; ++i)
#pragma unroll
      for (int j = 0; j < kCols; ++j) {
        nvcuda::wmma::store_matrix_sync(own, sum[i][j], 16, nvcuda::wmma::mem_row_major);
        __syncwarp();
        f(row + 16 * i, col + 16 * j, own + lane() * 8, std::integral_constant<int, 8>{});
        __syncwarp();
      }
  }
};

template <bool a_flipped, bool b_flipped>
struct Sums<float, a_flipped, b_flipped> {
  static constexpr int m = 64, n = 64, k = 16, kRoom = 0;  // 16 x 16 threads, 4 x 4 elements each
  float sum[4][4];

  static __device__ int row(int i) { return static_cast<int>(threadIdx.x) / 16 + 16 * i; }
  static __device__ int col(int j) { return static_cast<int>(threadIdx.x) % 16 + 16 * j; }
  __device__ void clear() {
    for (auto& part : sum)
      for (float& x : part) x = 0;
  }
  __device__ void add(const float* a, int a_stride, const float* b, int b_stride) {
    for (int at = 0; at < k; ++at)
#pragma unroll
      for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j)
          sum[i][j] += a[a_flipped ? at * a_stride + row(i) : row(i) * a_stride + at] *
                       b[b_flipped ? col(j) * b_stride + at : at * b_stride + col(j)];
  }
  template <class F>
  __device__ void finish(float*, F f) {
    for (int i = 0; i < 4; ++i)
      for (int j = 0; j < 4; ++j) f(row(i), col(j), &sum[i][j], std::integral_constant<int, 1>{});
  }
};

// The expert and the first of its rows that tile number `tile` of so many rows has; experts: there is no such tile. Every warp
// finds it for itself, 32 experts at a time.
struct RowTile {
  int expert, first;
};
__device__ inline RowTile find_tile(const i32* bounds, int experts, int tile, int rows) {
  for (int start = 0; start < experts; start += kWarp) {
    const int e = start + lane();
    const int own = e < experts ? (bounds[e + 1] - bounds[e] + rows - 1) / rows : 0;
    int sum = own;
#pragma unroll
    for (int step = 1; step < kWarp; step *= 2) {
      const int left = __shfl_up_sync(~0u, sum, step);
      if (lane() >= step) sum += left;
    }
    const unsigned past = __ballot_sync(~0u, tile < sum);
    if (past != 0) {
      const int l = __ffs(static_cast<int>(past)) - 1, before = __shfl_sync(~0u, sum - own, l);
      return {start + l, bounds[start + l] + (tile - before) * rows};
    }
    tile -= __shfl_sync(~0u, sum, kWarp - 1);
  }
  return {experts, 0};
}

// a: rows of x or dy; b: weights, or for back_w rows of x; out: rows, or for back_w weights. wide = O, deep = I.
template <Kind kind, int V, class T, class Out, class B>
__global__ void __launch_bounds__(kThreads, 2) expert_kernel(Out* out, bool add, const T* a, const B* b, const i32* bounds,
                                                          int experts, i64 wide, i64 deep) {
  constexpr bool a_flipped = kind == Kind::back_w, b_flipped = kind == Kind::forward;
  using Tile = Sums<T, a_flipped, b_flipped>;
  using SliceA = std::conditional_t<a_flipped, Slice<T, Tile::k, Tile::m, V>, Slice<T, Tile::m, Tile::k, V>>;
  using SliceB = std::conditional_t<b_flipped, Slice<T, Tile::n, Tile::k, V>, Slice<T, Tile::k, Tile::n, V>>;
  constexpr int kSizeA = (a_flipped ? Tile::k : Tile::m) * SliceA::kStride;
  constexpr int kSizeB = (b_flipped ? Tile::n : Tile::k) * SliceB::kStride;
  constexpr int kBytes = 2 * (kSizeA + kSizeB) * static_cast<int>(sizeof(T));
  static_assert(kBytes >= Tile::kRoom * static_cast<int>(sizeof(float)));
  __shared__ alignas(128) unsigned char room[kBytes];
  const auto shared_a = [&](int turn) { return reinterpret_cast<T*>(room) + turn * (kSizeA + kSizeB); };

  const i64 col = static_cast<i64>(blockIdx.x) * Tile::n;  // of C
  i64 row, rows_end, cols, depth, out_stride;
  if constexpr (kind == Kind::back_w) {
    const int e = static_cast<int>(blockIdx.z), first = bounds[e];
    row = static_cast<i64>(blockIdx.y) * Tile::m, rows_end = wide, cols = deep, depth = bounds[e + 1] - first, out_stride = deep;
    a += first * wide, b += first * deep, out += e * wide * deep;
  } else {
    const RowTile tile = find_tile(bounds, experts, static_cast<int>(blockIdx.y), Tile::m);
    if (tile.expert == experts) return;
    row = tile.first, rows_end = bounds[tile.expert + 1];
    cols = kind == Kind::forward ? wide : deep, depth = kind == Kind::forward ? deep : wide, out_stride = cols;
    b += tile.expert * wide * deep;
  }
  const i64 a_stride = kind == Kind::forward ? deep : wide;

  SliceA next_a;
  SliceB next_b;
  const auto fetch = [&](i64 k) {
    if constexpr (a_flipped) next_a.fetch(a + k * a_stride + row, a_stride, depth - k, rows_end - row);
    else next_a.fetch(a + row * a_stride + k, a_stride, rows_end - row, depth - k);
    if constexpr (b_flipped) next_b.fetch(b + col * deep + k, deep, cols - col, depth - k);
    else next_b.fetch(b + k * deep + col, deep, depth - k, cols - col);
  };
  Tile sums;
  sums.clear();
  fetch(0);
  int turn = 0;  // of two places in shared memory: what a slow warp still multiplies is not overwritten
  for (i64 k = 0; k < depth; k += Tile::k, turn ^= 1) {
    T *now_a = shared_a(turn), *now_b = now_a + kSizeA;
    next_a.put(now_a);
    next_b.put(now_b);
    __syncthreads();
    fetch(k + Tile::k);
    sums.add(now_a, SliceA::kStride, now_b, SliceB::kStride);
  }
  __syncthreads();
  sums.finish(reinterpret_cast<float*>(room), [&]<int n>(int i, int j, const float* sum, std::integral_constant<int, n>) {
    if (row + i >= rows_end) return;
    Out* to = out + (row + i) * out_stride + col + j;
    if constexpr (n == V) {
      if (col + j < cols) accumulate<n>(to, add, [&](int v) { return sum[v]; });
    } else {
      for (int v = 0; v < n; ++v)
        if (col + j + v < cols) accumulate<1>(to + v, add, [&](int) { return sum[v]; });
    }
  });
}

// f(V) for what both strides and all pointers allow.
template <class T, class F>
void with_strides(i64 wide, i64 deep, std::initializer_list<const void*> pointers, F f) {
  with_width<T>(wide | deep, pointers, f);  // a power of two divides both if it divides all bits of either
}

unsigned tiles(i64 n, int size) { return static_cast<unsigned>(divide_up(n, size)); }

// The experts, after a look at the shapes.
int experts_of(Tensor rows, Tensor outs, Tensor w, Tensor bounds) {
  const i64 experts = bounds.size() - 1;
  fits(experts > 0 && w.rows() == experts * outs.cols() && w.cols() == rows.cols() && rows.rows() == outs.rows() &&
           rows.rows() < i64{1} << 31, "expert_linear");
  return static_cast<int>(experts);
}

template <Kind kind, class T>
void on_rows(Tensor out, Acc acc, Tensor a, Tensor w, Tensor bounds, int experts, i64 wide, i64 deep, cudaStream_t stream) {
  using Tile = Sums<T, false, kind == Kind::forward>;
  // Every expert's last tile may be begun only.
  const dim3 grid(tiles(out.cols(), Tile::n), static_cast<unsigned>(a.rows() / Tile::m + experts));
  with_type(w, [&](const auto* weights) {
    with_strides<T>(wide, deep, {out.data, a.data, weights}, [&](auto V) {
      expert_kernel<kind, V><<<grid, kThreads, 0, stream>>>(out.as<T>(), acc == Acc::add, static_cast<const T*>(a.as<T>()),
                                                            weights, bounds.as<i32>(), experts, wide, deep);
    });
  });
  launched("expert_linear");
}

}  // namespace

void CudaBackend::expert_linear(Tensor y, Tensor x, Tensor w, Tensor bounds) {
  const int experts = experts_of(x, y, w, bounds);
  with_activation([&]<class T>(T) {
    on_rows<Kind::forward, T>(y, Acc::set, x, w, bounds, experts, y.cols(), x.cols(), stream_);
  });
}

void CudaBackend::expert_linear_bwd_x(Tensor dx, Acc acc, Tensor dy, Tensor w, Tensor bounds) {
  if (!dx) return;
  const int experts = experts_of(dx, dy, w, bounds);
  with_activation([&]<class T>(T) {
    on_rows<Kind::back_x, T>(dx, acc, dy, w, bounds, experts, dy.cols(), dx.cols(), stream_);
  });
}

void CudaBackend::expert_linear_bwd_w(Tensor dw, Acc acc, Tensor dy, Tensor x, Tensor bounds) {
  if (!dw) return;
  const int experts = experts_of(x, dy, dw, bounds);
  const i64 wide = dy.cols(), deep = x.cols();
  with_activation([&]<class T>(T) {
    using Tile = Sums<T, true, false>;
    const dim3 grid(tiles(deep, Tile::n), tiles(wide, Tile::m), static_cast<unsigned>(experts));
    with_strides<T>(wide, deep, {dw.data, dy.data, x.data}, [&](auto V) {
      const auto launch = [&](auto* out) {
        expert_kernel<Kind::back_w, V><<<grid, kThreads, 0, stream_>>>(out, acc == Acc::add, static_cast<const T*>(dy.as<T>()),
                                                                       static_cast<const T*>(x.as<T>()), bounds.as<i32>(),
                                                                       experts, wide, deep);
      };
      if (dw.dtype == DType::f32) launch(dw.as<float>());
      else launch(dw.as<T>());
    });
  });
  launched("expert_linear_bwd_w");
}

}  // namespace signround::cuda
