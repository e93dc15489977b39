// Some columns of every row.   y[n, p*width + j] = x[n, p*period + first + j],   j < width.  A thread an element.
#include "cuda/backend.h"

namespace signround::cuda {
namespace {

template <class T>
__global__ void slice_kernel(T* y, const T* x, i64 n, ColumnSlice s) {
  const i64 i = global_thread();
  if (i < n) y[i] = x[i / s.width * s.period + s.first + i % s.width];
}

// dx is dy at those columns, 0 at the others.
template <class T>
__global__ void slice_bwd_kernel(T* dx, bool add, const T* dy, i64 n, ColumnSlice s) {
  const i64 i = global_thread();
  if (i >= n) return;
  const i64 j = i % s.period - s.first;
  const bool inside = j >= 0 && j < s.width;
  if (add && !inside) return;
  accumulate<1>(dx + i, add, [&](int) { return inside ? widened(dy[i / s.period * s.width + j]) : 0.0f; });
}

void fits_slice(Tensor part, Tensor whole, const ColumnSlice& s) {
  fits(s.width > 0 && s.first >= 0 && s.first + s.width <= s.period && whole.cols() % s.period == 0 &&
           whole.size() / s.period * s.width == part.size(), "slice");
}

}  // namespace

void CudaBackend::slice(Tensor y, Tensor x, const ColumnSlice& columns) {
  fits_slice(y, x, columns);
  with_activation([&]<class T>(T) {
    slice_kernel<<<blocks_for(y.size()), kBlock, 0, stream_>>>(y.as<T>(), x.as<T>(), y.size(), columns);
  });
  launched("slice");
}

void CudaBackend::slice_bwd(Tensor dx, Acc acc, Tensor dy, const ColumnSlice& columns) {
  if (!dx) return;
  fits_slice(dy, dx, columns);
  with_activation([&]<class T>(T) {
    slice_bwd_kernel<<<blocks_for(dx.size()), kBlock, 0, stream_>>>(dx.as<T>(), acc == Acc::add, dy.as<T>(), dx.size(),
                                                                    columns);
  });
  launched("slice_bwd");
}

}  // namespace signround::cuda
