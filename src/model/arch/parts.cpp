#include "model/arch/parts.h"

#include <cmath>

namespace signround {

int attend(Builder& b, const Config& c, i64 layer, int q, int k, int v) {
  const LayerConfig own = c.layer_config(layer);
  const RopeTable& table = own.window > 0 && !c.local_rope.inv_freq.empty() ? c.local_rope : c.rope;
  if (own.rotates && !c.alibi) {
    const RopeShape turn{
        .head_dim = c.head_dim, .rotary_dim = 2 * static_cast<i64>(table.inv_freq.size()), .interleaved = c.interleaved};
    q = b.rope(q, table, turn);
    k = b.rope(k, table, turn);
  }
  const float scale = c.attention_scale > 0 ? c.attention_scale : 1 / std::sqrt(static_cast<float>(c.head_dim));
  return b.attention(q, k, v,
                     {.heads = c.heads,
                      .kv_heads = c.kv_heads,
                      .head_dim = c.head_dim,
                      .scale = scale,
                      .window = own.window,
                      .softcap = c.attention_softcap,
                      .alibi = c.alibi,
                      .falcon_alibi = c.falcon_alibi});
}

int self_attention(Builder& b, const Config& c, i64 layer, int h, const std::string& prefix, const char* out) {
  const auto projected = [&](const char* name, const char* norm, i64 heads) {
    const i64 cols = heads * c.head_dim;
    const int x = b.linear(h, prefix + name, cols, c.qkv_bias);
    if (!norm || c.qk_norm == QkNorm::none) return x;
    if (c.qk_norm == QkNorm::head_layer) return b.layer_norm(x, prefix + norm + "layernorm", c.norm_eps, c.head_dim);
    return b.rms(x, prefix + norm + "norm", c.norm_eps, c.norm_plus, c.qk_norm == QkNorm::head ? c.head_dim : cols);
  };
  const int q = projected("q_proj", "q_", c.heads);
  const int k = projected("k_proj", "k_", c.kv_heads);
  const int v = projected("v_proj", nullptr, c.kv_heads);
  return b.linear(attend(b, c, layer, q, k, v), prefix + out, c.hidden, c.o_bias);
}

int fused_attention(Builder& b, const Config& c, i64 layer, int h, const char* fused, const char* out, i64 parts) {
  const i64 q = c.heads / parts * c.head_dim, kv = c.kv_heads / parts * c.head_dim, all = q + 2 * kv;
  const int x = b.linear(h, fused, parts * all, c.qkv_bias, c.transposed);
  const auto part = [&](i64 first, i64 width) { return b.slice(x, {.first = first, .width = width, .period = all}); };
  const int o = attend(b, c, layer, part(0, q), part(q, kv), part(q + kv, kv));
  return b.linear(o, out, c.hidden, c.o_bias, c.transposed);
}

int gated_mlp(Builder& b, const Config& c, int h, const std::string& prefix, i64 ffn) {
  if (ffn == 0) ffn = c.ffn;
  const int gate = b.linear(h, prefix + "gate_proj", ffn, c.mlp_bias), up = b.linear(h, prefix + "up_proj", ffn, c.mlp_bias);
  return b.linear(b.glu(gate, up, c.activation), prefix + "down_proj", c.hidden, c.mlp_bias);
}

int routed_mlp(Builder& b, const Config& c, int h, const std::string& prefix, const char* gate, const char* up,
               const char* down) {
  const int scores = b.router(h, prefix + "gate", c.experts.count);
  const Routing r = b.route(scores, prefix + "experts", c.experts.active, c.experts.normalized);
  const auto linear = [&](int x, const char* name, i64 out) { return b.expert_linear(x, r, prefix + "experts.*." + name, out); };
  const int x = b.dispatch(h, r), g = linear(x, gate, c.experts.ffn), u = linear(x, up, c.experts.ffn);
  return b.combine(linear(b.glu(g, u, c.activation), down, c.hidden), r);
}

int plain_mlp(Builder& b, const Config& c, int h, const char* up, const char* down) {
  h = b.act(b.linear(h, up, c.ffn, c.mlp_bias, c.transposed), c.activation);
  return b.linear(h, down, c.hidden, c.mlp_bias, c.transposed);
}

Program word_embedding(const Config& c, const char* prefix, const char* table) {
  Builder b(prefix);
  b.output(b.embed(b.ids(), table, c.vocab, c.hidden, c.embed_scale));
  return b.finish();
}

Program layer_norm_head(const Config& c, const char* norm, const char* table, const char* head, bool bias) {
  Builder b("");
  const int h = b.layer_norm(b.input(c.hidden), norm, c.norm_eps);
  b.output(c.tied_head ? b.tied_linear(h, table, c.vocab, bias ? cat(head, ".bias") : "") : b.linear(h, head, c.vocab, bias));
  return b.finish();
}

}  // namespace signround
