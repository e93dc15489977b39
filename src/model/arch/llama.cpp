// Llama 1, 2, 3 and everything with their layout: grouped-query attention, rotary positions, RMSNorm, SwiGLU.
#include <cmath>

#include "model/family.h"

namespace signround {

Program llama_embedding(const Config& c) {
  Builder b("model.");
  b.output(b.embed(b.ids(), "embed_tokens", c.vocab, c.hidden));
  return b.finish();
}

Program llama_block(const Config& c, i64 layer) {
  Builder b(cat("model.layers.", layer, "."));
  const RopeShape turn{.head_dim = c.head_dim, .rotary_dim = c.head_dim};
  const AttentionShape attention{.heads = c.heads, .kv_heads = c.kv_heads, .head_dim = c.head_dim,
                                 .scale = 1 / std::sqrt(static_cast<float>(c.head_dim))};
  const i64 q_cols = c.heads * c.head_dim, kv_cols = c.kv_heads * c.head_dim;

  int x = b.input(c.hidden);
  int h = b.rms(x, "input_layernorm", c.norm_eps);
  const int q = b.rope(b.linear(h, "self_attn.q_proj", q_cols, c.attention_bias), c.rope, turn);
  const int k = b.rope(b.linear(h, "self_attn.k_proj", kv_cols, c.attention_bias), c.rope, turn);
  const int v = b.linear(h, "self_attn.v_proj", kv_cols, c.attention_bias);
  x = b.add(x, b.linear(b.attention(q, k, v, attention), "self_attn.o_proj", c.hidden, c.attention_bias));
  h = b.rms(x, "post_attention_layernorm", c.norm_eps);
  const int gate = b.linear(h, "mlp.gate_proj", c.ffn, c.mlp_bias), up = b.linear(h, "mlp.up_proj", c.ffn, c.mlp_bias);
  x = b.add(x, b.linear(b.glu(gate, up, c.activation), "mlp.down_proj", c.hidden, c.mlp_bias));
  b.output(x);
  return b.finish();
}

Program llama_head(const Config& c) {
  Builder b("");
  b.output(b.linear(b.rms(b.input(c.hidden), "model.norm", c.norm_eps), c.tied_head ? "model.embed_tokens" : "lm_head", c.vocab));
  return b.finish();
}

}  // namespace signround
