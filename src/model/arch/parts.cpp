#include "model/arch/parts.h"

#include <cmath>

namespace signround {

int attend(Builder& b, const Config& c, i64 layer, int q, int k, int v) {
  const LayerConfig own = c.layer_config(layer);
  const RopeTable& table = own.window > 0 && !c.local_rope.inv_freq.empty() ? c.local_rope : c.rope;
  if (own.rotates) {
    const RopeShape turn{.head_dim = c.head_dim, .rotary_dim = 2 * static_cast<i64>(table.inv_freq.size())};
    q = b.rope(q, table, turn);
    k = b.rope(k, table, turn);
  }
  const float scale = c.attention_scale > 0 ? c.attention_scale : 1 / std::sqrt(static_cast<float>(c.head_dim));
  return b.attention(q, k, v, {.heads = c.heads, .kv_heads = c.kv_heads, .head_dim = c.head_dim, .scale = scale,
                               .window = own.window, .softcap = c.attention_softcap});
}

int self_attention(Builder& b, const Config& c, i64 layer, int h) {
  const auto projected = [&](const char* name, const char* norm, i64 heads) {
    const i64 cols = heads * c.head_dim;
    const int x = b.linear(h, name, cols, c.qkv_bias);
    if (!norm || c.qk_norm == QkNorm::none) return x;
    return b.rms(x, norm, c.norm_eps, c.norm_plus, c.qk_norm == QkNorm::head ? c.head_dim : cols);
  };
  const int q = projected("self_attn.q_proj", "self_attn.q_norm", c.heads);
  const int k = projected("self_attn.k_proj", "self_attn.k_norm", c.kv_heads);
  const int v = projected("self_attn.v_proj", nullptr, c.kv_heads);
  return b.linear(attend(b, c, layer, q, k, v), "self_attn.o_proj", c.hidden, c.o_bias);
}

int gated_mlp(Builder& b, const Config& c, int h) {
  const int gate = b.linear(h, "mlp.gate_proj", c.ffn, c.mlp_bias), up = b.linear(h, "mlp.up_proj", c.ffn, c.mlp_bias);
  return b.linear(b.glu(gate, up, c.activation), "mlp.down_proj", c.hidden, c.mlp_bias);
}

}  // namespace signround
