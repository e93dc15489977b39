// A tensor is a view: contiguous, row-major, non-owning, trivially copyable. Who owns the bytes is the business of memory.h.
#pragma once
#include "base/dtype.h"
#include "base/error.h"

namespace signround {

struct Tensor {
  void* data = nullptr;  // on the backend's device: only its kernels may dereference it
  DType dtype = DType::f32;
  int rank = 0;
  i64 dim[4] = {0, 0, 0, 0};

  explicit operator bool() const { return data != nullptr; }
  i64 size() const {  // elements
    i64 n = 1;
    for (int i = 0; i < rank; ++i) n *= dim[i];
    return n;
  }
  i64 bytes() const { return size() * bits_of(dtype) / 8; }
  i64 cols() const { return rank > 0 ? dim[rank - 1] : 1; }
  i64 rows() const { return cols() > 0 ? size() / cols() : 0; }

  // Typed pointer; a wrong type is a bug of the caller.
  template <class T>
  T* as() const {
    check(dtype == dtype_of<T>, ErrorKind::bug, "tensor is ", name_of(dtype), ", not ", name_of(dtype_of<T>));
    return static_cast<T*>(data);
  }

  // Rows [first, first + count) as a tensor [count, cols].
  Tensor slice(i64 first, i64 count) const {
    Tensor t = *this;
    t.data = static_cast<char*>(data) + first * cols() * bits_of(dtype) / 8;
    t.rank = 2;
    t.dim[0] = count;
    t.dim[1] = cols();
    return t;
  }
};

inline Tensor view(void* data, DType dtype, i64 rows, i64 cols) { return {data, dtype, 2, {rows, cols, 0, 0}}; }
inline Tensor view(void* data, DType dtype, i64 n) { return {data, dtype, 1, {n, 0, 0, 0}}; }

}  // namespace signround
