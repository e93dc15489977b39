// Norms, a warp a row.
// RMSNorm:   y = x o (w+p) * r,   r = 1/sqrt(mean(x^2) + eps)
// LayerNorm:   y = (x - m) * r o w + b,   m = mean(x),   r = 1/sqrt(mean((x-m)^2) + eps)
// Bound by memory: RMSNorm holds a row in its warp's registers while the mean of its squares is found.
#include "cuda/backend.h"

namespace signround::cuda {
namespace {

// A row of a warp in packs of V: pack k of a lane begins at column (k * 32 + lane) * V. f(k, column) for the lane's packs.
// held: as many packs of a lane are held in registers; 0: none, they are read again.
template <int V, int held, class F>
__device__ inline void for_packs(i64 cols, F f) {
  if constexpr (held > 0) {
#pragma unroll
    for (int k = 0; k < held; ++k) {
      const i64 column = static_cast<i64>(k * kWarp + lane()) * V;
      if (column < cols) f(k, column);
    }
  } else {
    for (i64 column = lane() * V; column < cols; column += kWarp * V) f(0, column);
  }
}

template <int V, int held, class T>
struct Row {
  const T* row;
  Pack<T, V> pack[held > 0 ? held : 1];
  __device__ Row(const T* from, i64 cols) : row(from) {
    if constexpr (held > 0) for_packs<V, held>(cols, [&](int k, i64 column) { pack[k] = load<V>(row + column); });
  }
  __device__ Pack<T, V> at(int k, i64 column) const {
    if constexpr (held > 0) return pack[k];
    else return load<V>(row + column);
  }
};

// f(held): enough for the row, if registers are.
template <int V, class F>
void with_held(i64 cols, F f) {
  if constexpr (V > 1) {
    if (cols <= 4 * kWarp * V) return f(std::integral_constant<int, 4>{});
    if (cols <= 16 * kWarp * V) return f(std::integral_constant<int, 16>{});
  }
  f(std::integral_constant<int, 0>{});
}

template <int V, int held, class T, class W>
__global__ void rms_kernel(T* y, float* r, const T* x, const W* w, i64 rows, i64 cols, float eps, float p) {
  const i64 row = global_warp();
  if (row >= rows) return;
  T* yr = y + row * cols;
  const Row<V, held, T> in(x + row * cols, cols);
  float sum = 0;
  for_packs<V, held>(cols, [&](int k, i64 i) {
    const Pack<T, V> a = in.at(k, i);
#pragma unroll
    for (int v = 0; v < V; ++v) sum += widened(a.x[v]) * widened(a.x[v]);
  });
  const float scale = 1 / sqrtf(warp_sum(sum) / static_cast<float>(cols) + eps);
  for_packs<V, held>(cols, [&](int k, i64 i) {
    const Pack<T, V> a = in.at(k, i);
    const Pack<W, V> weight = load<V>(w + i);
    accumulate<V>(yr + i, false, [&](int v) { return widened(a.x[v]) * (widened(weight.x[v]) + p) * scale; });
  });
  if (lane() == 0) r[row] = scale;
}

// dx = r * (dy o (w+p))  -  x * r^3 * mean(dy o (w+p) o x)
template <int V, int held, class T, class W>
__global__ void rms_bwd_kernel(T* dx, bool add, const T* dy, const T* x, const W* w, const float* r, i64 rows, i64 cols,
                               float p) {
  const i64 row = global_warp();
  if (row >= rows) return;
  T* dxr = dx + row * cols;
  const Row<V, held, T> back(dy + row * cols, cols), in(x + row * cols, cols);
  const float scale = r[row];
  float sum = 0;
  for_packs<V, held>(cols, [&](int k, i64 i) {
    const Pack<T, V> b = back.at(k, i), a = in.at(k, i);
    const Pack<W, V> weight = load<V>(w + i);
#pragma unroll
    for (int v = 0; v < V; ++v) sum += widened(b.x[v]) * (widened(weight.x[v]) + p) * widened(a.x[v]);
  });
  const float along = scale * scale * scale * (warp_sum(sum) / static_cast<float>(cols));
  for_packs<V, held>(cols, [&](int k, i64 i) {
    const Pack<T, V> b = back.at(k, i), a = in.at(k, i);
    const Pack<W, V> weight = load<V>(w + i);
    accumulate<V>(dxr + i, add, [&](int v) {
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
        with_held<V()>(cols, [&](auto held) {
          rms_kernel<V(), held()><<<blocks_for(rows * kWarp), kBlock, 0, stream_>>>(y.as<T>(), r.as<float>(), x.as<T>(), weight,
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
        with_held<V()>(cols, [&](auto held) {
          rms_bwd_kernel<V(), held()><<<blocks_for(rows * kWarp), kBlock, 0, stream_>>>(
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
