// Mixtures of experts are tuned on the CPU.
#include "cuda/backend.h"

namespace signround::cuda {
namespace {

[[noreturn]] void refuse() {
  fail(ErrorKind::bad_input, "mixtures of experts do not run on a GPU: use --device cpu");
}

}  // namespace

void CudaBackend::sigmoid_gate(Tensor, Tensor, Tensor) { refuse(); }
void CudaBackend::sigmoid_gate_bwd(Tensor, Tensor, Acc, Acc, Tensor, Tensor, Tensor) { refuse(); }
void CudaBackend::route(Tensor, Tensor, Tensor, Tensor, Tensor, bool) { refuse(); }
void CudaBackend::route_bwd(Tensor, Acc, Tensor, Tensor, Tensor, Tensor, bool) { refuse(); }
void CudaBackend::dispatch(Tensor, Tensor, Tensor) { refuse(); }
void CudaBackend::dispatch_bwd(Tensor, Acc, Tensor, Tensor) { refuse(); }
void CudaBackend::expert_linear(Tensor, Tensor, Tensor, Tensor) { refuse(); }
void CudaBackend::expert_linear_bwd_x(Tensor, Acc, Tensor, Tensor, Tensor) { refuse(); }
void CudaBackend::expert_linear_bwd_w(Tensor, Acc, Tensor, Tensor, Tensor) { refuse(); }
void CudaBackend::combine(Tensor, Tensor, Tensor, Tensor) { refuse(); }
void CudaBackend::combine_bwd(Tensor, Tensor, Acc, Acc, Tensor, Tensor, Tensor, Tensor) { refuse(); }

}  // namespace signround::cuda
