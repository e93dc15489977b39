// The instruction set on an NVIDIA GPU. Every method checks shapes and launches kernels on one stream; nothing waits except
// upload, download and synchronize, nothing is allocated in an op, so any sequence of ops can be recorded as a graph. The
// methods lie in the files of src/ops/cpu/'s names: norm.cu, rope.cu, mlp.cu, ...
// Used by the thread that made it.
#pragma once
#include <memory>
#include <string>

#include "cuda/common.cuh"
#include "cuda/matmul.h"
#include "ops/ops.h"

namespace signround::cuda {

class CudaBackend final : public Backend {
 public:
  // precision f32: activations are float, for checking; bf16: activations, their gradients and the factors of products are
  // bf16, sums f32; fp8: as bf16, but the large products of a linear's backward (fp8.cu). graph: repeat() records its body;
  // without, it launches every kernel every time, for debugging.
  CudaBackend(int device, Precision precision, bool graph);
  ~CudaBackend() override;
  CudaBackend(const CudaBackend&) = delete;

  std::string name() const override { return name_; }
  DType activation_type() const override { return activation_; }
  i64 free_bytes() const override;
  i64 total_bytes() const override;
  i64 peak_bytes() const override { return peak_; }
  Allocator& host_memory() override { return pinned_; }

  // ---- memory
  void* allocate(i64 bytes, std::string_view what) override;
  void release(void* data, i64 bytes) noexcept override;
  void upload(Tensor dst, const void* src) override;
  void download(void* dst, Tensor src) override;
  void copy(Tensor dst, Tensor src) override;
  void fill(Tensor dst, float value) override;
  void synchronize() override;
  void aside(const std::function<void()>& body) override;
  void rejoin() override;
  void repeat(i64 times, const std::function<void()>& body, const std::function<void(i64)>& issued) override;

  // ---- the ops: see ops/ops.h
  void embed(Tensor y, Tensor ids, Tensor table, float scale) override;
  void embed_bwd(Tensor dtable, Tensor dy, Tensor ids, float scale) override;
  void positions(Tensor y, i64 tokens, i64 offset) override;
  void rms(Tensor y, Tensor r, Tensor x, Tensor w, float eps, float p) override;
  void rms_bwd(Tensor dx, Acc acc, Tensor dy, Tensor x, Tensor w, Tensor r, float p) override;
  void layer_norm(Tensor y, Tensor stat, Tensor x, Tensor w, Tensor b, float eps) override;
  void layer_norm_bwd(Tensor dx, Acc acc, Tensor dy, Tensor x, Tensor w, Tensor stat) override;
  void linear(Tensor y, Tensor x, Tensor w, Tensor b, Tensor a) override;
  void linear_bwd_x(Tensor dx, Acc acc, Tensor dy, Tensor w) override;
  void linear_bwd_w(Tensor dw, Acc acc, Tensor dy, Tensor x) override;
  void linear_bwd(Tensor dx, Acc acc_x, Tensor dw, Acc acc_w, Tensor dy, Tensor x, Tensor w, Tensor scratch) override;
  i64 linear_scratch(const LinearShape& shape) const override;
  void rope(Tensor y, Tensor x, Tensor table, const RopeShape& shape) override;
  void rope_bwd(Tensor dx, Acc acc, Tensor dy, Tensor table, const RopeShape& shape) override;
  void attention(Tensor o, Tensor lse, Tensor q, Tensor k, Tensor v, const AttentionShape& shape) override;
  void attention_bwd(Tensor dq, Tensor dk, Tensor dv, Acc acc_q, Acc acc_k, Acc acc_v, Tensor delta, Tensor dout, Tensor q,
                     Tensor k, Tensor v, Tensor o, Tensor lse, const AttentionShape& shape) override;
  void glu(Tensor y, Tensor g, Tensor u, Activation act) override;
  void glu_bwd(Tensor dg, Tensor du, Acc acc_g, Acc acc_u, Tensor dy, Tensor g, Tensor u, Activation act) override;
  void act(Tensor y, Tensor x, Activation act) override;
  void act_bwd(Tensor dx, Acc acc, Tensor dy, Tensor x, Activation act) override;
  void slice(Tensor y, Tensor x, const ColumnSlice& columns) override;
  void slice_bwd(Tensor dx, Acc acc, Tensor dy, const ColumnSlice& columns) override;
  void add(Tensor y, Tensor a, Tensor b) override;
  void add_bwd(Tensor da, Acc acc, Tensor dy) override;
  void softcap(Tensor y, Tensor x, float cap) override;
  void softcap_bwd(Tensor dx, Acc acc, Tensor dy, Tensor y, float cap) override;
  void sigmoid_gate(Tensor y, Tensor x, Tensor g) override;
  void sigmoid_gate_bwd(Tensor dx, Tensor dg, Acc acc_x, Acc acc_g, Tensor dy, Tensor x, Tensor g) override;
  void route(Tensor weights, Tensor order, Tensor bounds, Tensor seen, Tensor z, bool normalized) override;
  void route_bwd(Tensor dz, Acc acc, Tensor dweights, Tensor z, Tensor weights, Tensor order, bool normalized) override;
  void dispatch(Tensor y, Tensor x, Tensor order) override;
  void dispatch_bwd(Tensor dx, Acc acc, Tensor dy, Tensor order) override;
  void expert_linear(Tensor y, Tensor x, Tensor w, Tensor bounds) override;
  void expert_linear_bwd_x(Tensor dx, Acc acc, Tensor dy, Tensor w, Tensor bounds) override;
  void expert_linear_bwd_w(Tensor dw, Acc acc, Tensor dy, Tensor x, Tensor bounds) override;
  void combine(Tensor y, Tensor x, Tensor weights, Tensor order) override;
  void combine_bwd(Tensor dx, Tensor dweights, Acc acc_x, Acc acc_weights, Tensor dy, Tensor x, Tensor weights,
                   Tensor order) override;
  void mse(Tensor dy, Tensor y, const Targets& targets, i64 tokens, bool skip_last, const TuningState& state) override;
  void cross_entropy(Tensor nll, Tensor logits, Tensor target) override;
  void cross_entropy_bwd(Tensor dlogits, Tensor logits, Tensor target) override;
  void group_range(Tensor wmin, Tensor wmax, Tensor w, const QuantSpec& spec) override;
  void qdq(Tensor wq, const QdqTensors& q, const QuantSpec& spec) override;
  void qdq_step(std::span<const QdqStep> weights, const TuningState& state) override;
  void search_factors(const QdqTensors& q, Tensor h, const QuantSpec& spec) override;
  void column_squares(Tensor h, Tensor x) override;
  void qdq_codes(const GridTensors& grid, const QdqTensors& q, const QuantSpec& spec) override;
  void gather(Tensor y, Tensor cache, i64 tokens, const TuningState& state) override;
  void keep_if_best(Tensor dst, Tensor src, const TuningState& state) override;

 private:
  // f(T{}) for the type of activations.
  template <class F>
  void with_activation(F&& f) const {
    if (activation_ == DType::bf16) f(bfloat{});
    else f(float{});
  }
  template <class T>
  static T* wanted(Tensor gradient) { return gradient ? gradient.as<T>() : nullptr; }

  void convert(Tensor dst, Tensor src);
  void rotate(Tensor y, Acc acc, Tensor x, Tensor table, const RopeShape& shape, float direction, std::string_view op);
  void throttle(i64 launches);
  void throw_faults();

  // Memory of the host that the device reads and writes by the same addresses, over the bus.
  struct Pinned final : Allocator {
    void* allocate(i64 bytes, std::string_view what) override;
    void release(void* data, i64 bytes) noexcept override;
  };

  static constexpr i64 kStagingBytes = i64{16} << 20;  // of each of the two buffers that uploads and downloads go through
  static constexpr int kLossParts = 1024;              // partial sums of the loss

  std::string name_;
  DType activation_;
  bool fp8_, graph_;
  i64 in_use_ = 0, peak_ = 0;
  Pinned pinned_;
  cudaStream_t stream_ = nullptr, side_ = nullptr;
  cudaEvent_t forked_ = nullptr, joined_ = nullptr;  // where side_ starts, where it ends
  void* staging_[2] = {};        // pinned
  cudaEvent_t events_[2] = {};   // when a staging buffer, or a stretch of repeat(), is done with
  Faults* faults_ = nullptr;     // on the device
  double* loss_parts_ = nullptr;
  std::unique_ptr<Products> products_;
};

}  // namespace signround::cuda
