// The backward of a large linear in fp8, on Hopper: dw = dy^T x and dx = dy w with factors in e4m3. It takes 0.6 of the time of
// bf16, the conversion of the factors included.
//
// Hopper multiplies bytes only where both factors have the index that is summed over innermost. So dw wants dy^T and x^T, dx
// wants dy and w^T: one kernel converts and transposes. dy has a scale for every tile of 128 x 128, the same for dy and dy^T; x^T
// and w^T for every 128 neighbours along the sum. A scale is the largest magnitude over 448, e4m3's largest number: nothing is
// clipped, and what is 2^14 times smaller than the largest still has all its three bits. Sums are f32.
#include <cuda_fp8.h>

#include "cuda/backend.h"

namespace signround::cuda {
namespace {

constexpr float kLargest = 448;      // of e4m3
constexpr float kLeast = 0x1p-110f;  // what is smaller counts as zero: its scale would have no inverse

// A thread has a square of kSide x kSide numbers, a warp 64 rows of 32 columns of them, a block a tile.
constexpr int kSide = 8, kAcross = 4, kDown = kWarp / kAcross;

struct Scale {
  float value = 0, inverse = 0;
  Scale() = default;
  __device__ explicit Scale(float largest) {
    if (largest < kLeast) return;
    value = largest / kLargest;
    inverse = kLargest / largest;
  }
};

__device__ inline __nv_fp8x2_storage_t converted(float a, float b) {
  return __nv_cvt_float2_to_fp8x2({a, b}, __NV_SATFINITE, __NV_E4M3);
}
// f(i) for the eight neighbours i.
template <class F>
__device__ inline void store_codes(u8* to, F f) {
  Pack<__nv_fp8x2_storage_t, kSide / 2> out;
#pragma unroll
  for (int i = 0; i < kSide / 2; ++i) out.x[i] = converted(f(2 * i), f(2 * i + 1));
  store<kSide / 2>(reinterpret_cast<__nv_fp8x2_storage_t*>(to), out);
}

// The largest magnitude in each of a thread's columns -> that in the whole column of the tile, in every thread.
__device__ inline void largest_of_columns(float (&largest)[kSide], int column) {
  __shared__ float half[2][kTile];
#pragma unroll
  for (int c = 0; c < kSide; ++c)
#pragma unroll
    for (int step = kAcross; step < kWarp; step *= 2) largest[c] = fmaxf(largest[c], __shfl_xor_sync(~0u, largest[c], step));
  const int which = static_cast<int>(threadIdx.x) / kWarp / kAcross;
  if (lane() < kAcross)
#pragma unroll
    for (int c = 0; c < kSide; ++c) half[which][column + c] = largest[c];
  __syncthreads();
#pragma unroll
  for (int c = 0; c < kSide; ++c) largest[c] = fmaxf(largest[c], half[1 - which][column + c]);
}

// x [rows, cols], both multiples of 16. whole: one scale for the tile, and codes in both directions. Else a scale for each of its
// columns, and transposed codes alone.
template <bool whole, class T>
__global__ void __launch_bounds__(kBlock) fp8_kernel(u8* codes, float* scales, u8* codes_t, float* scales_t, const T* x,
                                                     i64 rows, i64 cols) {
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int column_in_tile = (warp % kAcross * kAcross + lane() % kAcross) * kSide;
  const i64 column = blockIdx.x * kTile + column_in_tile;
  const i64 row = blockIdx.y * kTile + (warp / kAcross * kDown + lane() / kAcross) * kSide;
  const bool inside = row < rows && column < cols;
  Pack<T, kSide> in[kSide] = {};
  float largest[kSide] = {};
#pragma unroll
  for (int r = 0; r < kSide; ++r)
    if (inside) in[r] = load<kSide>(x + (row + r) * cols + column);
#pragma unroll
  for (int r = 0; r < kSide; ++r)
#pragma unroll
    for (int c = 0; c < kSide; ++c) largest[c] = fmaxf(largest[c], fabsf(widened(in[r].x[c])));

  Scale scale[whole ? 1 : kSide];
  if constexpr (whole) {
    float all = 0;
#pragma unroll
    for (int c = 0; c < kSide; ++c) all = fmaxf(all, largest[c]);
    scale[0] = Scale(block_max(all));
    if (threadIdx.x == 0) {
      scales[blockIdx.y * tile_pitch(cols) + blockIdx.x] = scale[0].value;
      scales_t[blockIdx.x * tile_pitch(rows) + blockIdx.y] = scale[0].value;
    }
  } else {
    largest_of_columns(largest, column_in_tile);
#pragma unroll
    for (int c = 0; c < kSide; ++c) {
      scale[c] = Scale(largest[c]);
      if (row == blockIdx.y * kTile && column < cols) scales_t[blockIdx.y * cols + column + c] = scale[c].value;
    }
  }
  if (!inside) return;
  if constexpr (whole)
#pragma unroll
    for (int r = 0; r < kSide; ++r)
      store_codes(codes + (row + r) * cols + column, [&](int c) { return widened(in[r].x[c]) * scale[0].inverse; });
#pragma unroll
  for (int c = 0; c < kSide; ++c)
    store_codes(codes_t + (column + c) * rows + row,
                [&](int r) { return widened(in[r].x[c]) * scale[whole ? 0 : c].inverse; });
}

dim3 tiles_of(Tensor x) {
  return {static_cast<unsigned>(divide_up(x.cols(), kTile)), static_cast<unsigned>(divide_up(x.rows(), kTile))};
}

struct Factor {
  Tensor codes;   // e4m3
  Tensor scales;  // f32
};

// dy in both directions; x^T for dw, w^T for dx.
struct Factors {
  Factor dy, dy_t, x_t, w_t;

  Factors(Arena& arena, const Backend::LinearShape& s) {
    const auto take = [&](i64 rows, i64 cols, i64 scale_rows, i64 scale_cols) {
      return Factor{arena.take(DType::f8_e4m3, {rows, cols}), arena.take(DType::f32, {scale_rows, scale_cols})};
    };
    const auto tiles = [](i64 n) { return divide_up(n, kTile); };
    dy = take(s.rows, s.out, tiles(s.rows), tile_pitch(s.out));
    dy_t = take(s.out, s.rows, tiles(s.out), tile_pitch(s.rows));
    if (s.dw) x_t = take(s.in, s.rows, tiles(s.rows), s.in);
    if (s.dx) w_t = take(s.in, s.out, tiles(s.out), s.in);
  }
};

// Whether the products save more than it takes to convert their factors. On an H100 fp8 does 1250 operations where bf16 does 790,
// while 2.5 bytes move: that pays from about 900 operations a byte on.
bool worth_it(const Backend::LinearShape& s) {
  constexpr double kOperationsPerByte = 900;
  const auto count = [](i64 a, i64 b) { return static_cast<double>(a) * static_cast<double>(b); };
  const double operations = 2 * count(s.rows, s.out) * static_cast<double>(s.in) * (s.dx + s.dw);
  const double bytes = 4 * count(s.rows, s.out) + 3 * count(s.rows, s.in) * s.dw + 3 * count(s.out, s.in) * s.dx;
  return operations > kOperationsPerByte * bytes;
}

}  // namespace

i64 CudaBackend::linear_scratch(const LinearShape& s) const {
  constexpr i64 kMultiple = 16;  // of cuBLASLt's e4m3 matrices
  const bool fits = s.rows % kMultiple == 0 && s.out % kMultiple == 0 && s.in % kMultiple == 0;
  if (!fp8_ || !(s.dx || s.dw) || !fits || !worth_it(s)) return 0;
  Arena measure;
  Factors(measure, s);
  return measure.used();
}

void CudaBackend::linear_bwd(Tensor dx, Acc acc_x, Tensor dw, Acc acc_w, Tensor dy, Tensor x, Tensor w, Tensor scratch) {
  if (!scratch) return Backend::linear_bwd(dx, acc_x, dw, acc_w, dy, x, w, scratch);
  const LinearShape s{dy.rows(), dy.cols(), w.cols(), static_cast<bool>(dx), static_cast<bool>(dw)};
  fits(w.rows() == s.out && (!dx || (dx.rows() == s.rows && dx.cols() == s.in)) &&
           (!dw || (dw.rows() == s.out && dw.cols() == s.in && x.rows() == s.rows && x.cols() == s.in)) &&
           linear_scratch(s) > 0, "linear_bwd");
  Arena arena(scratch.data, scratch.bytes());  // which refuses to be too small
  const Factors f(arena, s);
  const auto transpose = [&](const Factor& to, Tensor from) {
    with_type(from, [&](const auto* numbers) {
      fp8_kernel<false><<<tiles_of(from), kBlock, 0, stream_>>>(nullptr, nullptr, static_cast<u8*>(to.codes.data),
                                                                to.scales.as<float>(), numbers, from.rows(), from.cols());
    });
    launched("linear_bwd: transposing a factor");
  };
  with_type(dy, [&](const auto* numbers) {
    fp8_kernel<true><<<tiles_of(dy), kBlock, 0, stream_>>>(static_cast<u8*>(f.dy.codes.data), f.dy.scales.as<float>(),
                                                           static_cast<u8*>(f.dy_t.codes.data), f.dy_t.scales.as<float>(),
                                                           numbers, dy.rows(), dy.cols());
  });
  launched("linear_bwd: converting dy");
  const auto multiply = [&](Tensor out, Acc acc, const Factor& a, const Factor& b) {
    products_->run({.out = out, .a = a.codes, .b = b.codes, .plus = prior_of(out, acc), .a_scale = a.scales,
                    .b_scale = b.scales, .b_flipped = true, .m = a.codes.rows(), .n = b.codes.rows(), .k = a.codes.cols()});
  };
  if (dw) {
    transpose(f.x_t, x);
    multiply(dw, acc_w, f.dy_t, f.x_t);
  }
  if (dx) {
    transpose(f.w_t, w);
    multiply(dx, acc_x, f.dy, f.w_t);
  }
}

}  // namespace signround::cuda
