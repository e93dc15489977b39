// Matrix products by cuBLASLt, with everything that it wants to know kept per shape.
#pragma once
#include <map>
#include <tuple>

#include "cuda/cublaslt.h"
#include "ops/ops.h"

namespace signround::cuda {

// out [m, n] (=|+=) a [m, k] b [k, n] (+ bias [n]), row-major; a flipped factor lies in memory as its transpose. a and b have
// one type, f32 or bf16; out that or f32. The bias has the type of out.
struct Product {
  Tensor out, a, b, bias = {};
  bool a_flipped = false, b_flipped = false;
  i64 m = 0, n = 0, k = 0;
  Acc acc = Acc::set;
};

class Products {
 public:
  // The workspace comes from `memory`, which must outlive this.
  Products(Allocator& memory, int device, cudaStream_t stream);
  ~Products();
  Products(const Products&) = delete;

  void run(const Product& product);

 private:
  struct Plan {
    cublasLtMatmulDesc_t desc = nullptr;
    cublasLtMatrixLayout_t left = nullptr, right = nullptr, out = nullptr;
    cublasLtMatmulAlgo_t algo{};
  };
  // Two flips, types of factor and result, m, n, k, acc, bias, common alignment of the pointers: what a plan depends on.
  using Key = std::tuple<bool, bool, DType, DType, i64, i64, i64, Acc, bool, u32>;

  Plan make_plan(const Key& key) const;
  void require(cublasStatus_t status, const Key& key) const;

  const CublasLt& lt_;
  cublasLtHandle_t handle_ = nullptr;
  cudaStream_t stream_;
  Buffer workspace_;
  std::map<Key, Plan> plans_;
};

}  // namespace signround::cuda
