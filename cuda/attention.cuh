// Tiled attention on tensor cores: attention_fwd.cu, attention_bwd.cu. Formulas, shapes and layouts: ops/ops.h and
// AttentionShape. T: float or __nv_bfloat16. All pointers are on the device; nothing is allocated and nothing waits, so that
// calls can be captured in a graph. Sums have a fixed order: the same inputs give the same bits.
#pragma once
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "ops/types.h"

namespace signround::cuda {

// o [B*T, H*d] and lse [B*T, H] of q [B*T, H*d], k and v [B*T, K*d]; 16-byte aligned. Throws Error{bad_input} for a head_dim
// that no kernel was built for.
template <class T>
void attention_forward(cudaStream_t stream, T* o, float* lse, const T* q, const T* k, const T* v, const AttentionShape& shape);

// dq, dk, dv are each set or added to, and skipped where null. delta [B*T, H] is scratch: rowsum(dout o o).
template <class T>
void attention_backward(cudaStream_t stream, T* dq, T* dk, T* dv, Acc acc_q, Acc acc_k, Acc acc_v, float* delta, const T* dout,
                        const T* q, const T* k, const T* v, const T* o, const float* lse, const AttentionShape& shape);

}  // namespace signround::cuda
