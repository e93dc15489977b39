// linear: products by cuBLASLt.   y[N,O] = x[N,I] w[O,I]^T + b,   dx = dy w,   dw = dy^T x
//
// cuBLASLt thinks in columns: a row-major matrix is its transpose to it. So  out = a b  is asked for as  out^T = b^T a^T : b is
// the left factor, a the right one, and nothing is ever copied to be transposed.
//
// A plan is made when a product is first met. cuBLASLt proposes algorithms, the one first that it thinks the quickest: right to a
// few percent. Where that can matter they are measured, and the choice is kept in a file (io/choice_record.h) under the names of
// card, library and product, so that the same command gives the same bytes: the algorithm decides how sums are split. What
// cannot be kept is not measured; the first proposal is always the same. No algorithm may depend on the order in which blocks
// finish.
#include <cmath>
#include <cstdio>
#include <limits>

#include "cuda/backend.h"

namespace signround::cuda {
namespace {

constexpr int kProposals = 8;
constexpr double kWorthMeasuring = 1e9;  // operations; what is smaller is over in microseconds whatever the algorithm

i64 workspace_bytes(int device) {  // what NVIDIA advises
  int major = 0;
  cuda_check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "cudaDeviceGetAttribute");
  return major >= 9 ? i64{32} << 20 : i64{4} << 20;
}

cudaDataType_t type_of(DType d) {
  switch (d) {
    case DType::f32: return CUDA_R_32F;
    case DType::bf16: return CUDA_R_16BF;
    case DType::f8_e4m3: return CUDA_R_8F_E4M3;
    default: fail(ErrorKind::bug, "no matrix product of elements of type ", name_of(d));
  }
}

// The largest power of two, at most 256, that divides all addresses.
u32 common_alignment(std::initializer_list<const void*> pointers) {
  std::uintptr_t bits = 256;
  for (const void* p : pointers) bits |= reinterpret_cast<std::uintptr_t>(p);
  return static_cast<u32>(bits & -bits);
}

}  // namespace

Products::Products(Allocator& memory, int device, std::string device_name, cudaStream_t stream, DType factor)
    : lt_(*cublaslt()), device_name_(std::move(device_name)), stream_(stream),
      workspace_(memory, workspace_bytes(device), "workspace of matrix products"), record_(plans_path()) {
  const cublasStatus_t status = lt_.create(&handle_);
  check(status == CUBLAS_STATUS_SUCCESS, ErrorKind::bug, "cuBLASLt cannot be set up: ", lt_.status_string(status));
  tell_trouble();
  // The first proposal that a process asks for takes cuBLASLt a tenth of a second, the others less than a millisecond.
  waking_ = std::async(std::launch::async, [this, device, factor] {
    cuda_check(cudaSetDevice(device), "cudaSetDevice");
    constexpr i64 kSide = 256;
    const Key any{false, true, factor, factor, kSide, kSide, kSide, false, 256};
    plans_.emplace(any, make_plan(any));
  });
}

Products::~Products() {
  if (waking_.valid()) waking_.wait();
  for (const auto& [key, plan] : plans_) {
    for (cublasLtMatrixLayout_t layout : {plan.left, plan.right, plan.out}) lt_.layout_destroy(layout);
    lt_.desc_destroy(plan.desc);
  }
  lt_.destroy(handle_);
}

std::string Products::describe(const Key& key) const {
  const auto& [a_flipped, b_flipped, factor, result, m, n, k, bias, alignment] = key;
  return cat(m, "x", k, a_flipped ? "^T " : " ", k, "x", n, b_flipped ? "^T of " : " of ", name_of(factor), " to ",
             name_of(result), bias ? " with bias" : "", ", aligned to ", alignment, ", cuBLASLt ", lt_.version(), ", ",
             device_name_);
}

void Products::require(cublasStatus_t status, const Key& key) const {
  check(status == CUBLAS_STATUS_SUCCESS, ErrorKind::bug, "matrix product ", describe(key), ": ", lt_.status_string(status));
}

// Once a process, however many backends it makes.
void Products::tell_trouble() const {
  static bool told = false;
  if (record_.trouble().empty() || told) return;
  told = true;
  std::fprintf(stderr, "note: matrix products are not measured: %s\n", record_.trouble().c_str());
}

// All that distinguishes two algorithms, for the record and its readers.
std::string Products::configuration(const Algorithm& algorithm) const {
  std::string text;
  const auto append = [&](const char* name, cublasLtMatmulAlgoConfigAttributes_t attribute, auto value) {
    size_t written = 0;
    lt_.algo_get(&algorithm.value, attribute, &value, sizeof value, &written);  // what a library does not know stays 0
    text += cat(text.empty() ? "" : " ", name, ' ', value);
  };
  append("algorithm", CUBLASLT_ALGO_CONFIG_ID, i32{0});
  append("tile", CUBLASLT_ALGO_CONFIG_TILE_ID, u32{0});
  append("stages", CUBLASLT_ALGO_CONFIG_STAGES_ID, u32{0});
  append("split-k", CUBLASLT_ALGO_CONFIG_SPLITK_NUM, i32{0});
  append("reduction", CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME, u32{0});
  append("swizzle", CUBLASLT_ALGO_CONFIG_CTA_SWIZZLING, u32{0});
  append("option", CUBLASLT_ALGO_CONFIG_CUSTOM_OPTION, u32{0});
  append("inner", CUBLASLT_ALGO_CONFIG_INNER_SHAPE_ID, u16{0});
  append("cluster", CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID, u16{0});
  return text;
}

bool Products::recording() const {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  cuda_check(cudaStreamIsCapturing(stream_, &status), "cudaStreamIsCapturing");
  return status != cudaStreamCaptureStatusNone;
}

Products::Plan Products::make_plan(const Key& key) const {
  const auto& [a_flipped, b_flipped, factor, result, m, n, k, bias, alignment] = key;
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
  if (factor == DType::f8_e4m3) {
    set(CUBLASLT_MATMUL_DESC_A_SCALE_MODE, i32{CUBLASLT_MATMUL_MATRIX_SCALE_VEC128_32F});
    set(CUBLASLT_MATMUL_DESC_B_SCALE_MODE, i32{CUBLASLT_MATMUL_MATRIX_SCALE_BLK128x128_32F});
    const void* any = workspace_.data();  // run() names the scales; without some there are no proposals
    set(CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, any);
    set(CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, any);
  }

  cublasLtMatmulPreference_t preference;
  require(lt_.preference_create(&preference), key);
  const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, const auto& value) {
    require(lt_.preference_set(preference, attribute, &value, sizeof value), key);
  };
  prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<u64>(workspace_.bytes()));
  // Without the scheme that adds partial sums to the result as they come.
  prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
         u32{CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE | CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE});
  for (const auto attribute : {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                               CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES})
    prefer(attribute, alignment);
  cublasLtMatmulHeuristicResult_t found[kProposals] = {};
  int count = 0;
  const cublasStatus_t status =
      lt_.heuristic(handle_, plan.desc, plan.left, plan.right, plan.out, plan.out, preference, kProposals, found, &count);
  lt_.preference_destroy(preference);
  require(status, key);
  require(count > 0 ? found[0].state : CUBLAS_STATUS_NOT_SUPPORTED, key);
  for (int i = 0; i < count; ++i)
    if (found[i].state == CUBLAS_STATUS_SUCCESS) plan.proposals.push_back({found[i].algo});

  const std::string* known = record_.find(describe(key));
  const bool open = record_.keeps() && !known && 2.0 * m * n * k >= kWorthMeasuring;
  if (!open) keep_only(plan, known ? *known : "");
  return plan;
}

// The proposal of that configuration alone; the first, if none has it.
void Products::keep_only(Plan& plan, const std::string& how) const {
  const auto found = std::find_if(plan.proposals.begin(), plan.proposals.end(),
                                  [&](const Algorithm& a) { return configuration(a) == how; });
  plan.proposals = {found == plan.proposals.end() ? plan.proposals.front() : *found};
}

cublasStatus_t Products::multiply(const Plan& plan, const Algorithm& algorithm, const Product& p) const {
  const Tensor prior = p.plus ? p.plus : p.out;
  const float one = 1, before = p.plus ? 1 : 0;
  return lt_.matmul(handle_, plan.desc, &one, p.b.data, plan.left, p.a.data, plan.right, &before, prior.data, plan.out,
                    p.out.data, plan.out, &algorithm.value, workspace_.data(), static_cast<size_t>(workspace_.bytes()),
                    stream_);
}

namespace {

class Timer {
 public:
  explicit Timer(cudaStream_t stream) : stream_(stream) {
    for (cudaEvent_t* event : {&start_, &end_}) cuda_check(cudaEventCreate(event), "cudaEventCreate");
  }
  ~Timer() {
    for (cudaEvent_t event : {start_, end_}) cudaEventDestroy(event);
  }
  Timer(const Timer&) = delete;

  // Of `runs` runs in a row.
  template <class F>
  float milliseconds(int runs, F f) const {
    cuda_check(cudaEventRecord(start_, stream_), "measuring a matrix product");
    for (int i = 0; i < runs; ++i) f();
    cuda_check(cudaEventRecord(end_, stream_), "measuring a matrix product");
    cuda_check(cudaEventSynchronize(end_), "measuring a matrix product");
    float ms = 0;
    cuda_check(cudaEventElapsedTime(&ms, start_, end_), "measuring a matrix product");
    return ms;
  }

 private:
  cudaStream_t stream_;
  cudaEvent_t start_ = nullptr, end_ = nullptr;
};

}  // namespace

// Measures on the caller's own operands, in the order of the stream: the result is about to be overwritten anyway. Each proposal
// has one run to load its kernel; the slow ones drop out after a round, and long products have fewer rounds.
void Products::choose(const Key& key, Plan& plan, const Product& p) {
  constexpr int kRounds = 3;
  constexpr float kEnough = 25, kSlow = 1.1f, kClear = 1.02f;  // milliseconds; ratios of times
  const double flops = 2.0 * p.m * p.n * p.k;
  const int runs = static_cast<int>(std::clamp(1.5e11 / flops, 1.0, 10.0));
  const std::vector<Algorithm>& all = plan.proposals;
  std::vector<float> best(all.size(), std::numeric_limits<float>::infinity());
  std::vector<size_t> left;
  for (size_t i = 0; i < all.size(); ++i)
    if (multiply(plan, all[i], p) == CUBLAS_STATUS_SUCCESS) left.push_back(i);
  const Timer timer(stream_);
  float spent = 0;
  for (int round = 0; round < kRounds && left.size() > 1 && spent < kEnough; ++round) {
    for (size_t i : left) {
      const float ms = timer.milliseconds(runs, [&] { multiply(plan, all[i], p); });
      best[i] = std::min(best[i], ms);
      spent += ms;
    }
    const float quickest = *std::min_element(best.begin(), best.end());
    std::erase_if(left, [&](size_t i) { return best[i] > kSlow * quickest; });
  }
  const auto quicker = [&](size_t i, size_t j) { return best[i] < best[j]; };
  size_t winner = left.empty() ? 0 : *std::min_element(left.begin(), left.end(), quicker);
  if (std::isfinite(best[0]) && best[0] <= kClear * best[winner]) winner = 0;  // a difference that small is noise
  settle(key, plan, winner);
}

// From now on, in this process and in those to come.
void Products::settle(const Key& key, Plan& plan, size_t proposal) {
  const std::string* settled = record_.settle(describe(key), configuration(plan.proposals[proposal]));
  if (!settled) tell_trouble();
  keep_only(plan, settled ? *settled : "");
}

void Products::run(const Product& p) {
  if (waking_.valid()) waking_.get();
  const Key key{p.a_flipped, p.b_flipped, p.a.dtype, p.out.dtype, p.m, p.n, p.k, static_cast<bool>(p.bias),
                common_alignment({p.out.data, p.a.data, p.b.data, p.plus.data})};
  auto found = plans_.find(key);
  if (found == plans_.end()) found = plans_.emplace(key, make_plan(key)).first;
  Plan& plan = found->second;
  const auto point = [&](cublasLtMatmulDescAttributes_t attribute, const Tensor& t) {
    if (t) require(lt_.desc_set(plan.desc, attribute, &t.data, sizeof t.data), key);
  };
  point(CUBLASLT_MATMUL_DESC_BIAS_POINTER, p.bias);
  point(CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, p.b_scale);  // cuBLASLt's A is our b
  point(CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, p.a_scale);
  if (plan.proposals.size() > 1) {
    if (!p.adds_to_itself() && !recording()) choose(key, plan, p);
    else settle(key, plan, 0);  // to measure would add again and again, or never run
  }
  require(multiply(plan, plan.proposals.front(), p), key);
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

void CudaBackend::linear(Tensor y, Tensor x, Tensor w, Tensor b, Tensor a) {
  fits(x.cols() == w.cols() && y.cols() == w.rows() && y.rows() == x.rows() && (!b || b.size() == w.rows()) &&
           (!a || a.size() == y.size()), "linear");
  const Converted weight(stream_, w, activation_), bias(stream_, b, activation_);
  if (weight.needed()) convert(weight.tensor, w);
  if (bias.needed()) convert(bias.tensor, b);
  products_->run({.out = y, .a = x, .b = weight.tensor, .bias = bias.tensor, .plus = a, .b_flipped = true, .m = x.rows(),
                  .n = w.rows(), .k = x.cols()});
}

void CudaBackend::linear_bwd_x(Tensor dx, Acc acc, Tensor dy, Tensor w) {
  if (!dx) return;
  fits(dx.cols() == w.cols() && dy.cols() == w.rows() && dy.rows() == dx.rows(), "linear_bwd_x");
  const Converted weight(stream_, w, activation_);
  if (weight.needed()) convert(weight.tensor, w);
  products_->run({.out = dx, .a = dy, .b = weight.tensor, .plus = prior_of(dx, acc), .m = dy.rows(), .n = w.cols(),
                  .k = w.rows()});
}

void CudaBackend::linear_bwd_w(Tensor dw, Acc acc, Tensor dy, Tensor x) {
  if (!dw) return;
  fits(dw.cols() == x.cols() && dw.rows() == dy.cols() && dy.rows() == x.rows(), "linear_bwd_w");
  products_->run({.out = dw, .a = dy, .b = x, .plus = prior_of(dw, acc), .a_flipped = true, .m = dy.cols(), .n = x.cols(),
                  .k = x.rows()});
}

}  // namespace signround::cuda
