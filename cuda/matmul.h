// Matrix products by cuBLASLt, with everything that it wants to know kept per shape.
#pragma once
#include <future>
#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "cuda/cublaslt.h"
#include "io/choice_record.h"
#include "ops/ops.h"

namespace signround::cuda {

// out [m, n] = a [m, k] b [k, n] (+ bias [n]) (+ plus [m, n]), row-major; a flipped factor lies in memory as its transpose. a and
// b have one type, f32 or bf16; out that or f32. The bias and plus have the type of out; plus may be out itself.
// Or a and b are e4m3, b flipped, out bf16 or f32: then a has a scale for every tile, f32 [ceil(m/128), tile_pitch(k)], and b for
// every 128 neighbours along k, f32 [ceil(k/128), n].
struct Product {
  Tensor out, a, b, bias = {}, plus = {}, a_scale = {}, b_scale = {};
  bool a_flipped = false, b_flipped = false;
  i64 m = 0, n = 0, k = 0;
  bool adds_to_itself() const { return plus.data == out.data; }
};

inline Tensor prior_of(Tensor out, Acc acc) { return acc == Acc::add ? out : Tensor{}; }  // as Product::plus

inline constexpr i64 kTile = 128;
// Scales from one row of tiles to the next: cuBLASLt wants a multiple of four.
constexpr i64 tile_pitch(i64 k) { return (k + 4 * kTile - 1) / (4 * kTile) * 4; }

class Products {
 public:
  // The workspace comes from `memory`, which must outlive this. factor: the type of most products to come.
  Products(Allocator& memory, int device, std::string device_name, cudaStream_t stream, DType factor);
  ~Products();
  Products(const Products&) = delete;

  // The first product of its kind, if it is large and nobody has met it before on this machine, is measured: the host waits.
  // While the stream is being recorded, and where the result is added to, nothing is measured: the first proposal is settled on.
  void run(const Product& product);
  bool multiply_fp8() const { return lt_.version() >= 120900; }

 private:
  struct Algorithm {  // nvcc 13.0 does not survive a vector of a struct without a name
    cublasLtMatmulAlgo_t value;
  };
  struct Plan {
    cublasLtMatmulDesc_t desc = nullptr;
    cublasLtMatrixLayout_t left = nullptr, right = nullptr, out = nullptr;
    std::vector<Algorithm> proposals;  // the first is used; while there are more, none is chosen yet
  };
  // Two flips, types of factor and result, m, n, k, bias, common alignment of the pointers: what a plan depends on.
  using Key = std::tuple<bool, bool, DType, DType, i64, i64, i64, bool, u32>;

  Plan make_plan(const Key& key) const;
  void choose(const Key& key, Plan& plan, const Product& product);
  void settle(const Key& key, Plan& plan, size_t proposal);
  void keep_only(Plan& plan, const std::string& how) const;
  cublasStatus_t multiply(const Plan& plan, const Algorithm& algorithm, const Product& product) const;
  std::string configuration(const Algorithm& algorithm) const;
  std::string describe(const Key& key) const;
  bool recording() const;
  void tell_trouble() const;
  void require(cublasStatus_t status, const Key& key) const;

  const CublasLt& lt_;
  std::string device_name_;
  cublasLtHandle_t handle_ = nullptr;
  cudaStream_t stream_;
  Buffer workspace_;
  ChoiceRecord record_;
  std::map<Key, Plan> plans_;
  std::future<void> waking_;  // the thread that alone may touch plans_ until it is done
};

}  // namespace signround::cuda
