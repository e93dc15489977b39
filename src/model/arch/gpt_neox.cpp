// GPT-NeoX and Pythia: q, k and v of each head side by side in one linear, rotary positions on part of a head, attention and MLP
// side by side behind a LayerNorm each.
#include "model/arch/parts.h"
#include "model/family.h"

namespace signround {

void read_gpt_neox(Config& c, const Json& json) {
  read_decoder(c, json,
               {.sizes = {.vocab = 50432, .hidden = 6144, .ffn = 24576, .layers = 44, .heads = 64},
                .kv_heads = nullptr,
                .norm_eps = "layer_norm_eps",
                .default_eps = 1e-5,
                .default_activation = "gelu",
                .rope_theta = "rotary_emb_base",
                .rotary_share = "rotary_pct",
                .default_share = 0.25});
  c.qkv_bias = c.o_bias = json.boolean("attention_bias", true);
  c.mlp_bias = true;
  c.parallel = json.boolean("use_parallel_residual", true);
}

Program gpt_neox_embedding(const Config& c) { return word_embedding(c, "gpt_neox.", "embed_in"); }

Program gpt_neox_block(const Config& c, i64 layer) {
  Builder b(cat("gpt_neox.layers.", layer, "."));
  const int x = b.input(c.hidden), h = b.layer_norm(x, "input_layernorm", c.norm_eps);
  const int attended = fused_attention(b, c, layer, h, "attention.query_key_value", "attention.dense", c.heads);
  const int middle = b.add(x, attended);
  const int g = b.layer_norm(c.parallel ? x : middle, "post_attention_layernorm", c.norm_eps);
  b.output(b.add(middle, plain_mlp(b, c, g, "mlp.dense_h_to_4h", "mlp.dense_4h_to_h")));
  return b.finish();
}

Program gpt_neox_head(const Config& c) {
  return layer_norm_head(c, "gpt_neox.final_layer_norm", "gpt_neox.embed_in", "embed_out");
}

}  // namespace signround
