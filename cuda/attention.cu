// Attention: the kernels lie in attention_fwd.cu and attention_bwd.cu.
#include "cuda/attention.cuh"

#include "cuda/backend.h"

namespace signround::cuda {
namespace {

void fits_attention(Tensor o, Tensor lse, Tensor q, Tensor k, Tensor v, const AttentionShape& s) {
  const i64 rows = s.batch * s.tokens;
  fits(o.size() == q.size() && q.size() == rows * s.heads * s.head_dim && k.size() == rows * s.kv_heads * s.head_dim &&
           v.size() == k.size() && lse.size() == rows * s.heads && s.kv_heads > 0 && s.heads % s.kv_heads == 0, "attention");
}

}  // namespace

void CudaBackend::attention(Tensor o, Tensor lse, Tensor q, Tensor k, Tensor v, const AttentionShape& shape) {
  fits_attention(o, lse, q, k, v, shape);
  with_activation([&]<class T>(T) {
    attention_forward<T>(stream_, o.as<T>(), lse.as<float>(), q.as<T>(), k.as<T>(), v.as<T>(), shape);
  });
  launched("attention");
}

void CudaBackend::attention_bwd(Tensor dq, Tensor dk, Tensor dv, Acc acc_q, Acc acc_k, Acc acc_v, Tensor delta, Tensor dout,
                                Tensor q, Tensor k, Tensor v, Tensor o, Tensor lse, const AttentionShape& shape) {
  fits_attention(o, lse, q, k, v, shape);
  fits((!dq || dq.size() == q.size()) && (!dk || dk.size() == k.size()) && (!dv || dv.size() == v.size()) &&
           delta.size() == lse.size() && dout.size() == o.size(), "attention_bwd");
  with_activation([&]<class T>(T) {
    attention_backward<T>(stream_, wanted<T>(dq), wanted<T>(dk), wanted<T>(dv), acc_q, acc_k, acc_v, delta.as<float>(),
                          dout.as<T>(), q.as<T>(), k.as<T>(), v.as<T>(), o.as<T>(), lse.as<float>(), shape);
  });
  launched("attention_bwd");
}

}  // namespace signround::cuda
