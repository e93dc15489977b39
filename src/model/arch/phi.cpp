// Phi-2: attention and MLP side by side behind one LayerNorm, rotary positions on part of a head. Phi-3 and 4: Llama with fused
// q, k, v and fused gate and up; long contexts by longrope.
#include "model/arch/parts.h"
#include "model/family.h"

namespace signround {

void read_phi(Config& c, const Json& json) {
  read_decoder(c, json,
               {.sizes = {.vocab = 51200, .hidden = 2048, .ffn = 8192, .layers = 24, .heads = 32},
                .norm_eps = "layer_norm_eps",
                .default_eps = 1e-5,
                .default_activation = "gelu_new",
                .rotary_share = "partial_rotary_factor",
                .default_share = 0.5});
  if (json.boolean("qk_layernorm", false)) c.qk_norm = QkNorm::head_layer;
  c.qkv_bias = c.o_bias = c.mlp_bias = true;
}

Program phi_block(const Config& c, i64 layer) {
  Builder b(cat("model.layers.", layer, "."));
  const int x = b.input(c.hidden), h = b.layer_norm(x, "input_layernorm", c.norm_eps);
  const int attended = self_attention(b, c, layer, h, "self_attn.", "dense");
  b.output(b.add(x, b.add(attended, plain_mlp(b, c, h, "mlp.fc1", "mlp.fc2"))));
  return b.finish();
}

Program phi_head(const Config& c) {
  return layer_norm_head(c, "model.final_layernorm", "model.embed_tokens", "lm_head", true);
}

void read_phi3(Config& c, const Json& json) {
  constexpr i64 kPositions = 4096;
  read_decoder(c, json,
               {.sizes = {.vocab = 32064, .hidden = 3072, .ffn = 8192, .layers = 32, .heads = 32, .positions = kPositions},
                .default_eps = 1e-5,
                .rotary_share = "partial_rotary_factor",
                .original_positions = kPositions});
  c.layer.assign(static_cast<size_t>(c.layers), {.window = read_window(json, 0)});
}

Program phi3_block(const Config& c, i64 layer) {
  Builder b(cat("model.layers.", layer, "."));
  int x = b.input(c.hidden);
  int h = b.rms(x, "input_layernorm", c.norm_eps);
  x = b.add(x, fused_attention(b, c, layer, h, "self_attn.qkv_proj", "self_attn.o_proj", 1));
  h = b.linear(b.rms(x, "post_attention_layernorm", c.norm_eps), "mlp.gate_up_proj", 2 * c.ffn);
  const int gate = b.slice(h, {.first = 0, .width = c.ffn, .period = 2 * c.ffn});
  const int up = b.slice(h, {.first = c.ffn, .width = c.ffn, .period = 2 * c.ffn});
  b.output(b.add(x, b.linear(b.glu(gate, up, c.activation), "mlp.down_proj", c.hidden)));
  return b.finish();
}

}  // namespace signround
