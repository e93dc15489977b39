// Rotary position embedding.   (y_i, y_j) = (x_i cos - x_j sin, x_j cos + x_i sin) for the pairs (i, j) of a head; position =
// row % T. The backward is the rotation back: the same with -sin. A block a row; a thread takes V pairs, or V elements that do
// not rotate.
#include "cuda/backend.h"

namespace signround::cuda {
namespace {

template <int V, class T>
__global__ void rotate_kernel(T* y, bool add, const T* x, const float* table, RopeShape shape, float direction) {
  const int d = static_cast<int>(shape.head_dim), pairs = static_cast<int>(shape.rotary_dim) / 2;
  const int turns = pairs / V, items = turns + (d - 2 * pairs) / V;  // of a head
  const i64 row = blockIdx.x, at = row * shape.heads * d;
  const float *cosine = table + row % shape.tokens * 2 * pairs, *sine = cosine + pairs;
  const int all = items * static_cast<int>(shape.heads), threads = static_cast<int>(blockDim.x);
  for (int item = static_cast<int>(threadIdx.x); item < all; item += threads) {
    const int head = item / items, k = item % items * V;
    T* yh = y + at + head * d;
    const T* xh = x + at + head * d;
    if (k >= pairs) {
      const int i = pairs + k;
      const Pack<T, V> in = load<V>(xh + i);
      accumulate<V>(yh + i, add, [&](int v) { return widened(in.x[v]); });
      continue;
    }
    const Pack<float, V> c = load<V>(cosine + k), s = load<V>(sine + k);
    if (shape.interleaved) {
      const Pack<T, 2 * V> in = load<2 * V>(xh + 2 * k);
      accumulate<2 * V>(yh + 2 * k, add, [&](int v) {
        const float across = direction * s.x[v / 2] * widened(in.x[v ^ 1]), along = widened(in.x[v]) * c.x[v / 2];
        return v % 2 == 0 ? along - across : along + across;
      });
    } else {
      const Pack<T, V> a = load<V>(xh + k), b = load<V>(xh + k + pairs);
      const auto turned = [&](int v) { return direction * s.x[v]; };
      accumulate<V>(yh + k, add, [&](int v) { return widened(a.x[v]) * c.x[v] - widened(b.x[v]) * turned(v); });
      accumulate<V>(yh + k + pairs, add, [&](int v) { return widened(b.x[v]) * c.x[v] + widened(a.x[v]) * turned(v); });
    }
  }
}

}  // namespace

void CudaBackend::rotate(Tensor y, Acc acc, Tensor x, Tensor table, const RopeShape& s, float direction, std::string_view op) {
  fits(y.size() == x.size() && x.cols() == s.heads * s.head_dim && s.rotary_dim % 2 == 0 && s.rotary_dim <= s.head_dim &&
           s.tokens > 0 && table.size() == s.tokens * s.rotary_dim, op);
  with_activation([&]<class T>(T) {
    const i64 common = s.head_dim | s.rotary_dim / 2;  // divisible by a power of two if both are
    with_width<T>(common, {y.data, x.data, table.data}, [&](auto V) {
      const i64 items = s.heads * (s.head_dim - s.rotary_dim / 2) / V;
      const int threads = static_cast<int>(std::min<i64>(kBlock, divide_up(items, kWarp) * kWarp));
      rotate_kernel<V><<<static_cast<unsigned>(x.rows()), threads, 0, stream_>>>(y.as<T>(), acc == Acc::add, x.as<T>(),
                                                                                  table.as<float>(), s, direction);
    });
  });
  launched(op);
}

void CudaBackend::rope(Tensor y, Tensor x, Tensor table, const RopeShape& shape) {
  rotate(y, Acc::set, x, table, shape, 1, "rope");
}

void CudaBackend::rope_bwd(Tensor dx, Acc acc, Tensor dy, Tensor table, const RopeShape& shape) {
  if (dx) rotate(dx, acc, dy, table, shape, -1, "rope_bwd");
}

}  // namespace signround::cuda
