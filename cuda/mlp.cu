// Activations, the gated unit, the residual, the soft limit: elementwise, 16 bytes a thread, bound by memory.
#include "cuda/backend.h"

namespace signround::cuda {
namespace {

__device__ inline float sigmoid(float x) { return 1 / (1 + expf(-x)); }

// Silu and GeluTanh are x sigmoid(inner(x)):   act'(x) = s + x s (1 - s) inner'(x),   s = sigmoid(inner(x))
template <class Inner>
struct SigmoidUnit {
  static __device__ float value(float x) { return x * sigmoid(Inner::inner(x)); }
  static __device__ float slope(float x) {
    const float s = sigmoid(Inner::inner(x));
    return s + x * s * (1 - s) * Inner::inner_slope(x);
  }
};
struct Linear {
  static __device__ float inner(float x) { return x; }
  static __device__ float inner_slope(float) { return 1; }
};
struct Cubic {
  static constexpr float kScale = 1.5957691216057308f, kCube = 0.044715f;  // 2 sqrt(2/pi)
  static __device__ float inner(float x) { return kScale * x * (1 + kCube * x * x); }
  static __device__ float inner_slope(float x) { return kScale * (1 + 3 * kCube * x * x); }
};
using Silu = SigmoidUnit<Linear>;
using GeluTanh = SigmoidUnit<Cubic>;

// x Phi(x);   act'(x) = Phi(x) + x phi(x),   Phi and phi the normal distribution and its density
struct Gelu {
  static constexpr float kDensity = 0.3989422804014327f;  // 1/sqrt(2 pi)
  static __device__ float value(float x) { return x * normcdff(x); }
  static __device__ float slope(float x) { return normcdff(x) + x * kDensity * expf(-0.5f * x * x); }
};

struct Relu {
  static __device__ float value(float x) { return x > 0 ? x : 0.0f; }
  static __device__ float slope(float x) { return x > 0 ? 1.0f : 0.0f; }
};

template <int V, class Act, class T>
__global__ void glu_kernel(T* y, const T* g, const T* u, i64 n) {
  const i64 i = global_thread() * V;
  if (i >= n) return;
  const Pack<T, V> gate = load<V>(g + i), up = load<V>(u + i);
  accumulate<V>(y + i, false, [&](int v) {
    return Act::value(widened(gate.x[v])) * widened(up.x[v]);
  });
}

// dg = dy o u o act'(g),   du = dy o act(g);   either may be null
template <int V, class Act, class T>
__global__ void glu_bwd_kernel(T* dg, T* du, bool add_g, bool add_u, const T* dy, const T* g, const T* u, i64 n) {
  const i64 i = global_thread() * V;
  if (i >= n) return;
  const Pack<T, V> back = load<V>(dy + i), gate = load<V>(g + i), up = load<V>(u + i);
  if (dg != nullptr)
    accumulate<V>(dg + i, add_g, [&](int v) {
      return widened(back.x[v]) * widened(up.x[v]) * Act::slope(widened(gate.x[v]));
    });
  if (du != nullptr) accumulate<V>(du + i, add_u, [&](int v) { return widened(back.x[v]) * Act::value(widened(gate.x[v])); });
}

// y = act(x)
template <int V, class Act, class T>
__global__ void act_kernel(T* y, const T* x, i64 n) {
  const i64 i = global_thread() * V;
  if (i >= n) return;
  const Pack<T, V> in = load<V>(x + i);
  accumulate<V>(y + i, false, [&](int v) { return Act::value(widened(in.x[v])); });
}

// dx = dy o act'(x)
template <int V, class Act, class T>
__global__ void act_bwd_kernel(T* dx, bool add, const T* dy, const T* x, i64 n) {
  const i64 i = global_thread() * V;
  if (i >= n) return;
  const Pack<T, V> back = load<V>(dy + i), in = load<V>(x + i);
  accumulate<V>(dx + i, add, [&](int v) { return widened(back.x[v]) * Act::slope(widened(in.x[v])); });
}

template <int V, class T>
__global__ void add_kernel(T* y, const T* a, const T* b, i64 n) {
  const i64 i = global_thread() * V;
  if (i >= n) return;
  const Pack<T, V> left = load<V>(a + i), right = load<V>(b + i);
  accumulate<V>(y + i, false, [&](int v) { return widened(left.x[v]) + widened(right.x[v]); });
}

template <int V, class T>
__global__ void add_bwd_kernel(T* da, bool add, const T* dy, i64 n) {
  const i64 i = global_thread() * V;
  if (i >= n) return;
  const Pack<T, V> back = load<V>(dy + i);
  accumulate<V>(da + i, add, [&](int v) { return widened(back.x[v]); });
}

template <int V, class T>
__global__ void softcap_kernel(T* y, const T* x, float cap, i64 n) {
  const i64 i = global_thread() * V;
  if (i >= n) return;
  const Pack<T, V> in = load<V>(x + i);
  accumulate<V>(y + i, false, [&](int v) { return cap * tanhf(widened(in.x[v]) / cap); });
}

// dx = dy o (1 - (y / cap)^2)
template <int V, class T>
__global__ void softcap_bwd_kernel(T* dx, bool add, const T* dy, const T* y, float cap, i64 n) {
  const i64 i = global_thread() * V;
  if (i >= n) return;
  const Pack<T, V> back = load<V>(dy + i), out = load<V>(y + i);
  accumulate<V>(dx + i, add, [&](int v) {
    const float t = widened(out.x[v]) / cap;
    return widened(back.x[v]) * (1 - t * t);
  });
}

template <class F>
void with_act(Activation act, F f) {
  switch (act) {
    case Activation::silu: return f(Silu{});
    case Activation::gelu_tanh: return f(GeluTanh{});
    case Activation::gelu: return f(Gelu{});
    case Activation::relu: return f(Relu{});
  }
}

}  // namespace

void CudaBackend::glu(Tensor y, Tensor g, Tensor u, Activation act) {
  fits(y.size() == g.size() && g.size() == u.size(), "glu");
  const i64 n = y.size();
  with_activation([&]<class T>(T) {
    with_width<T>(n, {y.data, g.data, u.data}, [&](auto V) {
      with_act(act, [&]<class Act>(Act) {
        glu_kernel<V, Act><<<blocks_for(divide_up(n, V)), kBlock, 0, stream_>>>(y.as<T>(), g.as<T>(), u.as<T>(), n);
      });
    });
  });
  launched("glu");
}

void CudaBackend::glu_bwd(Tensor dg, Tensor du, Acc acc_g, Acc acc_u, Tensor dy, Tensor g, Tensor u, Activation act) {
  fits(dy.size() == g.size() && g.size() == u.size() && (!dg || dg.size() == g.size()) && (!du || du.size() == u.size()),
       "glu_bwd");
  const i64 n = dy.size();
  with_activation([&]<class T>(T) {
    with_width<T>(n, {dg.data, du.data, dy.data, g.data, u.data}, [&](auto V) {
      with_act(act, [&]<class Act>(Act) {
        glu_bwd_kernel<V, Act><<<blocks_for(divide_up(n, V)), kBlock, 0, stream_>>>(
            wanted<T>(dg), wanted<T>(du), acc_g == Acc::add, acc_u == Acc::add, dy.as<T>(), g.as<T>(), u.as<T>(), n);
      });
    });
  });
  launched("glu_bwd");
}

void CudaBackend::act(Tensor y, Tensor x, Activation act) {
  fits(y.size() == x.size(), "act");
  const i64 n = y.size();
  with_activation([&]<class T>(T) {
    with_width<T>(n, {y.data, x.data}, [&](auto V) {
      with_act(act, [&]<class Act>(Act) {
        act_kernel<V, Act><<<blocks_for(divide_up(n, V)), kBlock, 0, stream_>>>(y.as<T>(), x.as<T>(), n);
      });
    });
  });
  launched("act");
}

void CudaBackend::act_bwd(Tensor dx, Acc acc, Tensor dy, Tensor x, Activation act) {
  if (!dx) return;
  fits(dx.size() == x.size() && dy.size() == x.size(), "act_bwd");
  const i64 n = dx.size();
  with_activation([&]<class T>(T) {
    with_width<T>(n, {dx.data, dy.data, x.data}, [&](auto V) {
      with_act(act, [&]<class Act>(Act) {
        act_bwd_kernel<V, Act><<<blocks_for(divide_up(n, V)), kBlock, 0, stream_>>>(dx.as<T>(), acc == Acc::add, dy.as<T>(),
                                                                                    x.as<T>(), n);
      });
    });
  });
  launched("act_bwd");
}

void CudaBackend::add(Tensor y, Tensor a, Tensor b) {
  fits(y.size() == a.size() && a.size() == b.size(), "add");
  const i64 n = y.size();
  with_activation([&]<class T>(T) {
    with_width<T>(n, {y.data, a.data, b.data}, [&](auto V) {
      add_kernel<V><<<blocks_for(divide_up(n, V)), kBlock, 0, stream_>>>(y.as<T>(), a.as<T>(), b.as<T>(), n);
    });
  });
  launched("add");
}

void CudaBackend::add_bwd(Tensor da, Acc acc, Tensor dy) {
  if (!da) return;
  fits(da.size() == dy.size(), "add_bwd");
  const i64 n = dy.size();
  with_activation([&]<class T>(T) {
    with_width<T>(n, {da.data, dy.data}, [&](auto V) {
      add_bwd_kernel<V><<<blocks_for(divide_up(n, V)), kBlock, 0, stream_>>>(da.as<T>(), acc == Acc::add, dy.as<T>(), n);
    });
  });
  launched("add_bwd");
}

void CudaBackend::softcap(Tensor y, Tensor x, float cap) {
  fits(y.size() == x.size() && cap > 0, "softcap");
  const i64 n = y.size();
  with_activation([&]<class T>(T) {
    with_width<T>(n, {y.data, x.data}, [&](auto V) {
      softcap_kernel<V><<<blocks_for(divide_up(n, V)), kBlock, 0, stream_>>>(y.as<T>(), x.as<T>(), cap, n);
    });
  });
  launched("softcap");
}

void CudaBackend::softcap_bwd(Tensor dx, Acc acc, Tensor dy, Tensor y, float cap) {
  if (!dx) return;
  fits(dx.size() == y.size() && dy.size() == y.size() && cap > 0, "softcap_bwd");
  const i64 n = dy.size();
  with_activation([&]<class T>(T) {
    with_width<T>(n, {dx.data, dy.data, y.data}, [&](auto V) {
      softcap_bwd_kernel<V><<<blocks_for(divide_up(n, V)), kBlock, 0, stream_>>>(dx.as<T>(), acc == Acc::add, dy.as<T>(),
                                                                                  y.as<T>(), cap, n);
    });
  });
  launched("softcap_bwd");
}

}  // namespace signround::cuda
