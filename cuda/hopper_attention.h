// Attention on Hopper by its own instructions, where attention.cuh's kernels would do the same more slowly.
#pragma once
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "cuda/common.cuh"
#include "ops/types.h"

namespace signround::cuda {

// Whether these kernels take the shape, on the current device.
bool hopper_attends(const AttentionShape& shape);

// As attention_forward and attention_backward for bfloat; delta is there already.
void hopper_attention_forward(cudaStream_t stream, bfloat* o, float* lse, const bfloat* q, const bfloat* k, const bfloat* v,
                              const AttentionShape& shape);
void hopper_attention_backward(cudaStream_t stream, bfloat* dq, bfloat* dk, bfloat* dv, Acc acc_q, Acc acc_k, Acc acc_v,
                               const float* delta, const bfloat* dout, const bfloat* q, const bfloat* k, const bfloat* v,
                               const float* lse, const AttentionShape& shape);

}  // namespace signround::cuda
