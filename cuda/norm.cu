// Norms, a warp a row; RMSNorm of wide rows several.
// RMSNorm:   y = x o (w+p) * r,   r = 1/sqrt(mean(x^2) + eps)
// LayerNorm:   y = (x - m) * r o w + b,   m = mean(x),   r = 1/sqrt(mean((x-m)^2) + eps)
// Bound by memory: RMSNorm holds a row in its warps' registers while the mean of its squares is found. Registers are what a
// multiprocessor has too few of: with more warps a row each has less to hold, and more rows are under way.
#include "cuda/backend.h"

namespace signround::cuda {
namespace {

// How a row is shared out: `warps` warps of a block, V columns at a time. held: as many packs of V a lane holds in registers; 0:
// none, they are read again.
template <int V_, int held_, int warps_>
struct Share {
  static constexpr int V = V_, held = held_, warps = warps_;

  static constexpr bool holds(i64 cols) { return cols <= static_cast<i64>(held) * warps * kWarp * V; }
  __device__ static i64 row() { return global_warp() / warps; }
  __device__ static int member() { return static_cast<int>(threadIdx.x % (warps * kWarp)); }

  // f(k, column) for the packs of this lane: pack k begins at column (k * warps * 32 + member) * V.
  template <class F>
  __device__ static void for_packs(i64 cols, F f) {
    if constexpr (held > 0) {
#pragma unroll
      for (int k = 0; k < held; ++k) {
        const i64 column = static_cast<i64>(k * warps * kWarp + member()) * V;
        if (column < cols) f(k, column);
      }
    } else {
      for (i64 column = member() * V; column < cols; column += warps * kWarp * V) f(0, column);
    }
  }

  // Of the row's warps, in their order. Every thread of the block takes part.
  __device__ static float sum(float x) {
    x = warp_sum(x);
    if constexpr (warps > 1) {
      __shared__ float part[kBlock / kWarp];
      const int warp = static_cast<int>(threadIdx.x) / kWarp;
      if (lane() == 0) part[warp] = x;
      __syncthreads();
      x = 0;
#pragma unroll
      for (int i = 0; i < warps; ++i) x += part[warp / warps * warps + i];
    }
    return x;
  }
};

// What a lane has of a row of `cols` columns; nothing of 0.
template <class S, class T>
struct Row {
  const T* row;
  Pack<T, S::V> pack[S::held > 0 ? S::held : 1];
  __device__ Row(const T* from, i64 cols) : row(from) {
    if constexpr (S::held > 0) S::for_packs(cols, [&](int k, i64 column) { pack[k] = load<S::V>(row + column); });
  }
  __device__ Pack<T, S::V> at(int k, i64 column) const {
    if constexpr (S::held > 0) return pack[k];
    else return load<S::V>(row + column);
  }
};

// f(share): held in registers, if they are enough.
template <int V, class F>
void with_share(i64 cols, F f) {
  if constexpr (V > 1) {
    if (Share<V, 4, 1>::holds(cols)) return f(Share<V, 4, 1>{});
    if (Share<V, 4, 4>::holds(cols)) return f(Share<V, 4, 4>{});
    if (Share<V, 4, 8>::holds(cols)) return f(Share<V, 4, 8>{});
  }
  f(Share<V, 0, 1>{});
}

template <class S, class T, class W>
__global__ void rms_kernel(T* y, float* r, const T* x, const W* w, i64 rows, i64 all_cols, float eps, float p) {
  const i64 row = S::row(), cols = row < rows ? all_cols : 0;
  T* yr = y + row * cols;
  const Row<S, T> in(x + row * cols, cols);
  float sum = 0;
  S::for_packs(cols, [&](int k, i64 i) {
    const Pack<T, S::V> a = in.at(k, i);
#pragma unroll
    for (int v = 0; v < S::V; ++v) sum += widened(a.x[v]) * widened(a.x[v]);
  });
  const float scale = 1 / sqrtf(S::sum(sum) / static_cast<float>(all_cols) + eps);
  S::for_packs(cols, [&](int k, i64 i) {
    const Pack<T, S::V> a = in.at(k, i);
    const Pack<W, S::V> weight = load<S::V>(w + i);
    accumulate<S::V>(yr + i, false, [&](int v) { return widened(a.x[v]) * (widened(weight.x[v]) + p) * scale; });
  });
  if (S::member() == 0 && row < rows) r[row] = scale;
}

// dx = r * (dy o (w+p))  -  x * r^3 * mean(dy o (w+p) o x)
template <class S, class T, class W>
__global__ void __launch_bounds__(kBlock, 4) rms_bwd_kernel(T* dx, bool add, const T* dy, const T* x, const W* w, const float* r,
                                                            i64 rows, i64 all_cols, float p) {
  const i64 row = S::row(), cols = row < rows ? all_cols : 0;
  T* dxr = dx + row * cols;
  const Row<S, T> back(dy + row * cols, cols), in(x + row * cols, cols);
  const float scale = row < rows ? r[row] : 0;
  float sum = 0;
  S::for_packs(cols, [&](int k, i64 i) {
    const Pack<T, S::V> b = back.at(k, i), a = in.at(k, i);
    const Pack<W, S::V> weight = load<S::V>(w + i);
#pragma unroll
    for (int v = 0; v < S::V; ++v) sum += widened(b.x[v]) * (widened(weight.x[v]) + p) * widened(a.x[v]);
  });
  const float along = scale * scale * scale * (S::sum(sum) / static_cast<float>(all_cols));
  S::for_packs(cols, [&](int k, i64 i) {
    const Pack<T, S::V> b = back.at(k, i), a = in.at(k, i);
    const Pack<W, S::V> weight = load<S::V>(w + i);
    accumulate<S::V>(dxr + i, add, [&](int v) {
      return scale * (widened(b.x[v]) * (widened(weight.x[v]) + p)) - widened(a.x[v]) * along;
    });
  });
}

// stat [rows, 2]: m and r. b may be null.
template <class T, class W, class B>
__global__ void layer_norm_kernel(T* y, float* stat, const T* x, const W* w, const B* b, i64 rows, i64 cols, float eps) {
  const i64 row = global_warp();
  if (row >= rows) return;
  T* yr = y + row * cols;
  const T* xr = x + row * cols;
  float sum = 0, squares = 0;
  for (i64 i = lane(); i < cols; i += kWarp) sum += widened(xr[i]);
  const float m = warp_sum(sum) / static_cast<float>(cols);
  for (i64 i = lane(); i < cols; i += kWarp) squares += (widened(xr[i]) - m) * (widened(xr[i]) - m);
  const float r = 1 / sqrtf(warp_sum(squares) / static_cast<float>(cols) + eps);
  for (i64 i = lane(); i < cols; i += kWarp)
    yr[i] = narrowed<T>((widened(xr[i]) - m) * r * widened(w[i]) + (b != nullptr ? widened(b[i]) : 0.0f));
  if (lane() == 0) stat[2 * row] = m, stat[2 * row + 1] = r;
}

// dx = r * (a - mean(a) - h * mean(a o h)),   h = (x - m) * r,   a = dy o w
template <class T, class W>
__global__ void layer_norm_bwd_kernel(T* dx, bool add, const T* dy, const T* x, const W* w, const float* stat, i64 rows,
                                      i64 cols) {
  const i64 row = global_warp();
  if (row >= rows) return;
  T* dxr = dx + row * cols;
  const T *dyr = dy + row * cols, *xr = x + row * cols;
  const float m = stat[2 * row], r = stat[2 * row + 1];
  float sum = 0, product = 0;
  for (i64 i = lane(); i < cols; i += kWarp) {
    const float a = widened(dyr[i]) * widened(w[i]);
    sum += a;
    product += a * (widened(xr[i]) - m);
  }
  const float mean = warp_sum(sum) / static_cast<float>(cols), along = warp_sum(product) * r / static_cast<float>(cols);
  for (i64 i = lane(); i < cols; i += kWarp)
    accumulate<1>(dxr + i, add, [&](int) {
      return r * (widened(dyr[i]) * widened(w[i]) - mean - (widened(xr[i]) - m) * r * along);
    });
}

}  // namespace

void CudaBackend::rms(Tensor y, Tensor r, Tensor x, Tensor w, float eps, float p) {
  fits(y.size() == x.size() && w.size() > 0 && x.size() % w.size() == 0 && r.size() == x.size() / w.size(), "rms");
  const i64 rows = r.size(), cols = w.size();
  with_activation([&]<class T>(T) {
    with_type(w, [&](const auto* weight) {
      with_width<T>(cols, {y.data, x.data, weight}, [&](auto V) {
        with_share<V()>(cols, [&]<class S>(S) {
          rms_kernel<S><<<blocks_for(rows * S::warps * kWarp), kBlock, 0, stream_>>>(y.as<T>(), r.as<float>(), x.as<T>(), weight,
                                                                                     rows, cols, eps, p);
        });
      });
    });
  });
  launched("rms");
}

void CudaBackend::rms_bwd(Tensor dx, Acc acc, Tensor dy, Tensor x, Tensor w, Tensor r, float p) {
  if (!dx) return;
  fits(dx.size() == x.size() && dy.size() == x.size() && r.size() * w.size() == x.size(), "rms_bwd");
  const i64 rows = r.size(), cols = w.size();
  with_activation([&]<class T>(T) {
    with_type(w, [&](const auto* weight) {
      with_width<T>(cols, {dx.data, dy.data, x.data, weight}, [&](auto V) {
        with_share<V()>(cols, [&]<class S>(S) {
          rms_bwd_kernel<S><<<blocks_for(rows * S::warps * kWarp), kBlock, 0, stream_>>>(
              dx.as<T>(), acc == Acc::add, dy.as<T>(), x.as<T>(), weight, r.as<float>(), rows, cols, p);
        });
      });
    });
  });
  launched("rms_bwd");
}

void CudaBackend::layer_norm(Tensor y, Tensor stat, Tensor x, Tensor w, Tensor b, float eps) {
  fits(y.size() == x.size() && w.size() > 0 && x.size() % w.size() == 0 && stat.size() == 2 * (x.size() / w.size()) &&
           (!b || b.size() == w.size()), "layer_norm");
  const i64 rows = stat.size() / 2, cols = w.size();
  with_activation([&]<class T>(T) {
    with_type(w, [&](const auto* weight) {
      with_type(b ? b : w, [&](const auto* bias) {
        layer_norm_kernel<<<blocks_for(rows * kWarp), kBlock, 0, stream_>>>(y.as<T>(), stat.as<float>(), x.as<T>(), weight,
                                                                            b ? bias : nullptr, rows, cols, eps);
      });
    });
  });
  launched("layer_norm");
}

void CudaBackend::layer_norm_bwd(Tensor dx, Acc acc, Tensor dy, Tensor x, Tensor w, Tensor stat) {
  if (!dx) return;
  fits(dx.size() == x.size() && dy.size() == x.size() && stat.size() * w.size() == 2 * x.size(), "layer_norm_bwd");
  const i64 rows = stat.size() / 2, cols = w.size();
  with_activation([&]<class T>(T) {
    with_type(w, [&](const auto* weight) {
      layer_norm_bwd_kernel<<<blocks_for(rows * kWarp), kBlock, 0, stream_>>>(dx.as<T>(), acc == Acc::add, dy.as<T>(),
                                                                              x.as<T>(), weight, stat.as<float>(), rows, cols);
    });
  });
  launched("layer_norm_bwd");
}

}  // namespace signround::cuda
