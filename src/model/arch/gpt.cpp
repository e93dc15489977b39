// GPT-2: learned positions, LayerNorms, one linear for q, k and v; the checkpoint holds linears as [in, out]. GPT-J: rotary
// positions on neighbouring pairs of part of a head, attention and MLP side by side behind one LayerNorm.
#include "model/arch/parts.h"
#include "model/family.h"
#include "model/rope.h"

namespace signround {
namespace {

ConfigKeys keys_of(const Json& json, const Sizes& sizes) {
  return {.sizes = sizes,
          .hidden = present(json, "n_embd", "hidden_size"),
          .layers = present(json, "n_layer", "num_hidden_layers"),
          .heads = present(json, "n_head", "num_attention_heads"),
          .ffn = "n_inner",
          .kv_heads = nullptr,
          .positions = present(json, "n_positions", "max_position_embeddings"),
          .norm_eps = "layer_norm_epsilon",
          .default_eps = 1e-5,
          .activation = "activation_function",
          .default_activation = "gelu_new"};
}

}  // namespace

void read_gpt2(Config& c, const Json& json) {
  ConfigKeys keys = keys_of(json, {.vocab = 50257, .hidden = 768, .layers = 12, .heads = 12, .positions = 1024});
  keys.tied_head = true;
  keys.rotates = false;
  read_decoder(c, json, keys);
  refuse(json, "scale_attn_by_inverse_layer_idx");
  refuse(json, "add_cross_attention");
  if (!json.boolean("scale_attn_weights", true)) c.attention_scale = 1;
  c.qkv_bias = c.o_bias = c.mlp_bias = c.transposed = true;
  c.layer.assign(static_cast<size_t>(c.layers), {.rotates = false});
  c.learned_positions = true;
}

Program gpt2_embedding(const Config& c) {
  Builder b("transformer.");
  const int ids = b.ids(), words = b.embed(ids, "wte", c.vocab, c.hidden);
  b.output(b.add(words, b.embed(b.positions(ids, 0), "wpe", c.max_positions, c.hidden)));
  return b.finish();
}

Program gpt2_block(const Config& c, i64 layer) {
  Builder b(cat("transformer.h.", layer, "."));
  int x = b.input(c.hidden);
  x = b.add(x, fused_attention(b, c, layer, b.layer_norm(x, "ln_1", c.norm_eps), "attn.c_attn", "attn.c_proj", 1));
  b.output(b.add(x, plain_mlp(b, c, b.layer_norm(x, "ln_2", c.norm_eps), "mlp.c_fc", "mlp.c_proj")));
  return b.finish();
}

Program gpt2_head(const Config& c) { return layer_norm_head(c, "transformer.ln_f", "transformer.wte"); }

void read_gptj(Config& c, const Json& json) {
  ConfigKeys keys = keys_of(json, {.vocab = 50400, .hidden = 4096, .layers = 28, .heads = 16});
  keys.rotates = false;  // as below
  read_decoder(c, json, keys);
  const Json* given = json.find("rotary_dim");
  const i64 rotary_dim = given && given->is_null() ? c.head_dim : in_range(json, "rotary_dim", 2, c.head_dim, 64);
  check(rotary_dim % 2 == 0, ErrorKind::bad_input, "rotary_dim ", rotary_dim, " is odd: rotary positions need pairs");
  c.rope = read_rope(json, object_or_empty(json, "rope_scaling"), 10000, rotary_dim);
  c.interleaved = c.mlp_bias = true;
}

Program gptj_embedding(const Config& c) { return word_embedding(c, "transformer.", "wte"); }

Program gptj_block(const Config& c, i64 layer) {
  Builder b(cat("transformer.h.", layer, "."));
  const int x = b.input(c.hidden), h = b.layer_norm(x, "ln_1", c.norm_eps);
  const int attended = self_attention(b, c, layer, h, "attn.", "out_proj");
  b.output(b.add(x, b.add(attended, plain_mlp(b, c, h, "mlp.fc_in", "mlp.fc_out"))));
  return b.finish();
}

Program gptj_head(const Config& c) {
  return layer_norm_head(c, "transformer.ln_f", "transformer.wte", "lm_head", true);
}

}  // namespace signround
