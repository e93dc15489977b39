// linear: products by cuBLASLt.   y[N,O] = x[N,I] w[O,I]^T + b,   dx = dy w,   dw = dy^T x
//
// cuBLASLt thinks in columns: a row-major matrix is its transpose to it. So  out = a b  is asked for as  out^T = b^T a^T : b is
// the left factor, a the right one, and nothing is ever copied to be transposed.
//
// A plan is made when a product is first met. Its algorithm is the first that cuBLASLt proposes: the same library on the same
// card always proposes the same, so the same command gives the same bytes. No algorithm depends on the order in which blocks
// finish.
#include "cuda/backend.h"

namespace signround::cuda {
namespace {

i64 workspace_bytes(int device) {  // what NVIDIA advises
  int major = 0;
  cuda_check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "cudaDeviceGetAttribute");
  return major >= 9 ? i64{32} << 20 : i64{4} << 20;
}

cudaDataType_t type_of(DType d) {
  check(d == DType::f32 || d == DType::bf16, ErrorKind::bug, "no matrix product of elements of type ", name_of(d));
  return d == DType::f32 ? CUDA_R_32F : CUDA_R_16BF;
}

// The largest power of two, at most 256, that divides all addresses.
u32 common_alignment(std::initializer_list<const void*> pointers) {
  std::uintptr_t bits = 256;
  for (const void* p : pointers) bits |= reinterpret_cast<std::uintptr_t>(p);
  return static_cast<u32>(bits & -bits);
}

}  // namespace

Products::Products(Allocator& memory, int device, cudaStream_t stream)
    : lt_(*cublaslt()), stream_(stream), workspace_(memory, workspace_bytes(device), "workspace of matrix products") {
  const cublasStatus_t status = lt_.create(&handle_);
  check(status == CUBLAS_STATUS_SUCCESS, ErrorKind::bug, "cuBLASLt cannot be set up: ", lt_.status_string(status));
}

Products::~Products() {
  for (const auto& [key, plan] : plans_) {
    for (cublasLtMatrixLayout_t layout : {plan.left, plan.right, plan.out}) lt_.layout_destroy(layout);
    lt_.desc_destroy(plan.desc);
  }
  lt_.destroy(handle_);
}

void Products::require(cublasStatus_t status, const Key& key) const {
  const auto& [a_flipped, b_flipped, factor, result, m, n, k, acc, bias, alignment] = key;
  check(status == CUBLAS_STATUS_SUCCESS, ErrorKind::bug, "matrix product ", m, "x", k, " ", k, "x", n, " of ", name_of(factor),
        " to ", name_of(result), ": cuBLASLt ", lt_.version(), ": ", lt_.status_string(status));
}

Products::Plan Products::make_plan(const Key& key) const {
  const auto& [a_flipped, b_flipped, factor, result, m, n, k, acc, bias, alignment] = key;
  Plan plan;
  const auto layout = [&](DType type, i64 rows, i64 cols) {  // of a row-major matrix
    cublasLtMatrixLayout_t made;
    require(lt_.layout_create(&made, type_of(type), static_cast<u64>(cols), static_cast<u64>(rows), cols), key);
    return made;
  };
  plan.left = b_flipped ? layout(factor, n, k) : layout(factor, k, n);
  plan.right = a_flipped ? layout(factor, k, m) : layout(factor, m, k);
  plan.out = layout(result, m, n);

  require(lt_.desc_create(&plan.desc, CUBLAS_COMPUTE_32F, CUDA_R_32F), key);
  const auto set = [&](cublasLtMatmulDescAttributes_t attribute, const auto& value) {
    require(lt_.desc_set(plan.desc, attribute, &value, sizeof value), key);
  };
  set(CUBLASLT_MATMUL_DESC_TRANSA, b_flipped ? CUBLAS_OP_T : CUBLAS_OP_N);
  set(CUBLASLT_MATMUL_DESC_TRANSB, a_flipped ? CUBLAS_OP_T : CUBLAS_OP_N);
  if (bias) set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);

  cublasLtMatmulPreference_t preference;
  require(lt_.preference_create(&preference), key);
  const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, const auto& value) {
    require(lt_.preference_set(preference, attribute, &value, sizeof value), key);
  };
  prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<u64>(workspace_.bytes()));
  for (const auto attribute : {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                               CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES})
    prefer(attribute, alignment);
  cublasLtMatmulHeuristicResult_t found{};
  int count = 0;
  const cublasStatus_t status =
      lt_.heuristic(handle_, plan.desc, plan.left, plan.right, plan.out, plan.out, preference, 1, &found, &count);
  lt_.preference_destroy(preference);
  require(status, key);
  require(count > 0 ? found.state : CUBLAS_STATUS_NOT_SUPPORTED, key);
  plan.algo = found.algo;
  return plan;
}

void Products::run(const Product& p) {
  const Key key{p.a_flipped, p.b_flipped, p.a.dtype, p.out.dtype, p.m, p.n, p.k, p.acc, static_cast<bool>(p.bias),
                common_alignment({p.out.data, p.a.data, p.b.data})};
  auto found = plans_.find(key);
  if (found == plans_.end()) found = plans_.emplace(key, make_plan(key)).first;
  const Plan& plan = found->second;
  if (p.bias) require(lt_.desc_set(plan.desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &p.bias.data, sizeof p.bias.data), key);
  const float one = 1, before = p.acc == Acc::add ? 1 : 0;
  require(lt_.matmul(handle_, plan.desc, &one, p.b.data, plan.left, p.a.data, plan.right, &before, p.out.data, plan.out,
                     p.out.data, plan.out, &plan.algo, workspace_.data(), static_cast<size_t>(workspace_.bytes()), stream_), key);
}

namespace {

// A weight whose type is not that of the activations, converted for the length of a product. cuBLASLt multiplies factors of one
// type only; weights that are tuned or stored as bf16 never come here. Stream-ordered memory can be recorded in a graph.
class Converted {
 public:
  Converted(cudaStream_t stream, Tensor from, DType type) : tensor(from), stream_(stream) {
    if (!from || from.dtype == type) return;
    tensor.dtype = type;
    cuda_check(cudaMallocAsync(&memory_, static_cast<size_t>(tensor.bytes()), stream), "room for a converted weight");
    tensor.data = memory_;
  }
  ~Converted() {
    if (memory_) cudaFreeAsync(memory_, stream_);
  }
  Converted(const Converted&) = delete;
  bool needed() const { return memory_ != nullptr; }

  Tensor tensor;

 private:
  cudaStream_t stream_;
  void* memory_ = nullptr;
};

}  // namespace

void CudaBackend::linear(Tensor y, Tensor x, Tensor w, Tensor b) {
  fits(x.cols() == w.cols() && y.cols() == w.rows() && y.rows() == x.rows() && (!b || b.size() == w.rows()), "linear");
  const Converted weight(stream_, w, activation_), bias(stream_, b, activation_);
  if (weight.needed()) convert(weight.tensor, w);
  if (bias.needed()) convert(bias.tensor, b);
  products_->run({.out = y, .a = x, .b = weight.tensor, .bias = bias.tensor, .b_flipped = true, .m = x.rows(), .n = w.rows(),
                  .k = x.cols()});
}

void CudaBackend::linear_bwd_x(Tensor dx, Acc acc, Tensor dy, Tensor w) {
  if (!dx) return;
  fits(dx.cols() == w.cols() && dy.cols() == w.rows() && dy.rows() == dx.rows(), "linear_bwd_x");
  const Converted weight(stream_, w, activation_);
  if (weight.needed()) convert(weight.tensor, w);
  products_->run({.out = dx, .a = dy, .b = weight.tensor, .m = dy.rows(), .n = w.cols(), .k = w.rows(), .acc = acc});
}

void CudaBackend::linear_bwd_w(Tensor dw, Acc acc, Tensor dy, Tensor x) {
  if (!dw) return;
  fits(dw.cols() == x.cols() && dw.rows() == dy.cols() && dy.rows() == x.rows(), "linear_bwd_w");
  products_->run({.out = dw, .a = dy, .b = x, .a_flipped = true, .m = dy.cols(), .n = x.cols(), .k = x.rows(), .acc = acc});
}

}  // namespace signround::cuda
