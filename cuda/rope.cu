// Rotary position embedding.   (y_i, y_j) = (x_i cos - x_j sin, x_j cos + x_i sin) for the pairs (i, j) of a head; position =
// row % T. The backward is the rotation back: the same with -sin. A thread takes V pairs of a head, or V elements that do not
// rotate.
#include <limits>

#include "cuda/backend.h"

namespace signround::cuda {
namespace {

template <int V, class T>
__global__ void rotate_kernel(T* y, bool add, const T* x, const float* table, RopeShape shape, float direction, u32 all) {
  const u32 d = static_cast<u32>(shape.head_dim), pairs = static_cast<u32>(shape.rotary_dim) / 2;
  const u32 turns = pairs / V, items = turns + (d - 2 * pairs) / V;  // of a head
  const u32 index = static_cast<u32>(global_thread()), of_row = items * static_cast<u32>(shape.heads);
  if (index >= all) return;
  const u32 row = index / of_row, head = index % of_row / items, k = index % items * V;
  const i64 at = (row * shape.heads + head) * d;
  const float *cosine = table + row % static_cast<u32>(shape.tokens) * (2 * pairs), *sine = cosine + pairs;
  T* yh = y + at;
  const T* xh = x + at;
  if (k >= pairs) {
    const u32 i = pairs + k;
    const Pack<T, V> in = load<V>(xh + i);
    accumulate<V>(yh + i, add, [&](int v) { return widened(in.x[v]); });
    return;
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

}  // namespace

void CudaBackend::rotate(Tensor y, Acc acc, Tensor x, Tensor table, const RopeShape& s, float direction, std::string_view op) {
  fits(y.size() == x.size() && x.cols() == s.heads * s.head_dim && s.rotary_dim % 2 == 0 && s.rotary_dim <= s.head_dim &&
           s.tokens > 0 && table.size() == s.tokens * s.rotary_dim, op);
  with_activation([&]<class T>(T) {
    const i64 common = s.head_dim | s.rotary_dim / 2;  // divisible by a power of two if both are
    with_width<T>(common, {y.data, x.data, table.data}, [&](auto V) {
      const i64 items = x.rows() * s.heads * ((s.head_dim - s.rotary_dim / 2) / V);
      fits(items <= std::numeric_limits<u32>::max(), op);
      rotate_kernel<V><<<blocks_for(items), kBlock, 0, stream_>>>(y.as<T>(), acc == Acc::add, x.as<T>(), table.as<float>(), s,
                                                                   direction, static_cast<u32>(items));
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
