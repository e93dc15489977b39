// Rows of a table, a warp a row.   y[n] = scale * table[ids[n]];  dtable[ids[n]] += scale * dy[n], in the order of n.
#include "cuda/backend.h"

namespace signround::cuda {
namespace {

template <int V, class T, class W>
__global__ void embed_kernel(T* y, const i32* ids, const W* table, i64 rows, i64 cols, i64 vocabulary, float scale,
                             Faults* faults) {
  const i64 n = global_warp();
  if (n >= rows) return;
  const i32 id = ids[n];
  if (id < 0 || id >= vocabulary) {
    if (lane() == 0) report(faults, Fault::token, n, id);
    return;
  }
  for (i64 i = lane() * V; i < cols; i += kWarp * V) {
    const Pack<W, V> in = load<V>(table + id * cols + i);
    accumulate<V>(y + n * cols + i, false, [&](int v) { return scale * widened(in.x[v]); });
  }
}

// A thread a column: it meets the rows one after the other, so that those of one id are added in their order.
template <class T>
__global__ void embed_bwd_kernel(T* dtable, const T* dy, const i32* ids, i64 rows, i64 cols, i64 vocabulary, float scale,
                                 Faults* faults) {
  const i64 i = global_thread();
  if (i >= cols) return;
  for (i64 n = 0; n < rows; ++n) {
    const i32 id = ids[n];
    if (id < 0 || id >= vocabulary) {
      if (i == 0) report(faults, Fault::token, n, id);
      continue;
    }
    T& to = dtable[id * cols + i];
    to = narrowed<T>(widened(to) + scale * widened(dy[n * cols + i]));
  }
}

// y[n] = n % T + offset
__global__ void positions_kernel(i32* y, i64 rows, i64 tokens, i64 offset) {
  const i64 n = global_thread();
  if (n < rows) y[n] = static_cast<i32>(n % tokens + offset);
}

}  // namespace

void CudaBackend::positions(Tensor y, i64 tokens, i64 offset) {
  fits(tokens > 0 && y.size() % tokens == 0, "positions");
  positions_kernel<<<blocks_for(y.size()), kBlock, 0, stream_>>>(y.as<i32>(), y.size(), tokens, offset);
  launched("positions");
}

void CudaBackend::embed(Tensor y, Tensor ids, Tensor table, float scale) {
  fits(y.rows() == ids.size() && y.cols() == table.cols(), "embed");
  const i64 rows = y.rows(), cols = y.cols();
  with_activation([&]<class T>(T) {
    with_type(table, [&](const auto* from) {
      with_width<T>(cols, {y.data, from}, [&](auto V) {
        embed_kernel<V><<<blocks_for(rows * kWarp), kBlock, 0, stream_>>>(y.as<T>(), ids.as<i32>(), from, rows, cols,
                                                                          table.rows(), scale, faults_);
      });
    });
  });
  launched("embed");
}

void CudaBackend::embed_bwd(Tensor dtable, Tensor dy, Tensor ids, float scale) {
  fits(dy.rows() == ids.size() && dy.cols() == dtable.cols(), "embed_bwd");
  with_activation([&]<class T>(T) {
    embed_bwd_kernel<<<blocks_for(dy.cols()), kBlock, 0, stream_>>>(dtable.as<T>(), dy.as<T>(), ids.as<i32>(), dy.rows(),
                                                                    dy.cols(), dtable.rows(), scale, faults_);
  });
  launched("embed_bwd");
}

}  // namespace signround::cuda
