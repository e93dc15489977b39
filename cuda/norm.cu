// Norms, a warp a row.
// RMSNorm:   y = x o (w+p) * r,   r = 1/sqrt(mean(x^2) + eps)
// LayerNorm:   y = (x - m) * r o w + b,   m = mean(x),   r = 1/sqrt(mean((x-m)^2) + eps)
// Moves x twice, the second time from the cache, and y once: bound by memory.
#include "cuda/backend.h"

namespace signround::cuda {
namespace {

template <int V, class T, class W>
__global__ void rms_kernel(T* y, float* r, const T* x, const W* w, i64 rows, i64 cols, float eps, float p) {
  const i64 row = global_warp();
  if (row >= rows) return;
  T* yr = y + row * cols;
  const T* xr = x + row * cols;
  float sum = 0;
  for (i64 i = lane() * V; i < cols; i += kWarp * V) {
    const Pack<T, V> in = load<V>(xr + i);
#pragma unroll
    for (int v = 0; v < V; ++v) sum += widened(in.x[v]) * widened(in.x[v]);
  }
  const float scale = 1 / sqrtf(warp_sum(sum) / static_cast<float>(cols) + eps);
  for (i64 i = lane() * V; i < cols; i += kWarp * V) {
    const Pack<T, V> in = load<V>(xr + i);
    const Pack<W, V> weight = load<V>(w + i);
    accumulate<V>(yr + i, false, [&](int v) { return widened(in.x[v]) * (widened(weight.x[v]) + p) * scale; });
  }
  if (lane() == 0) r[row] = scale;
}

// dx = r * (dy o (w+p))  -  x * r^3 * mean(dy o (w+p) o x)
template <int V, class T, class W>
__global__ void rms_bwd_kernel(T* dx, bool add, const T* dy, const T* x, const W* w, const float* r, i64 rows, i64 cols,
                               float p) {
  const i64 row = global_warp();
  if (row >= rows) return;
  T* dxr = dx + row * cols;
  const T *dyr = dy + row * cols, *xr = x + row * cols;
  const float scale = r[row];
  float sum = 0;
  for (i64 i = lane() * V; i < cols; i += kWarp * V) {
    const Pack<T, V> back = load<V>(dyr + i), in = load<V>(xr + i);
    const Pack<W, V> weight = load<V>(w + i);
#pragma unroll
    for (int v = 0; v < V; ++v) sum += widened(back.x[v]) * (widened(weight.x[v]) + p) * widened(in.x[v]);
  }
  const float along = scale * scale * scale * (warp_sum(sum) / static_cast<float>(cols));
  for (i64 i = lane() * V; i < cols; i += kWarp * V) {
    const Pack<T, V> back = load<V>(dyr + i), in = load<V>(xr + i);
    const Pack<W, V> weight = load<V>(w + i);
    accumulate<V>(dxr + i, add, [&](int v) {
      return scale * (widened(back.x[v]) * (widened(weight.x[v]) + p)) - widened(in.x[v]) * along;
    });
  }
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
        rms_kernel<V><<<blocks_for(rows * kWarp), kBlock, 0, stream_>>>(y.as<T>(), r.as<float>(), x.as<T>(), weight, rows,
                                                                        cols, eps, p);
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
        rms_bwd_kernel<V><<<blocks_for(rows * kWarp), kBlock, 0, stream_>>>(dx.as<T>(), acc == Acc::add, dy.as<T>(), x.as<T>(),
                                                                            weight, r.as<float>(), rows, cols, p);
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
