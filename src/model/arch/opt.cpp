// OPT: learned positions from 2 on, LayerNorms, ReLU.
#include "model/arch/parts.h"
#include "model/family.h"

namespace signround {

void read_opt(Config& c, const Json& json) {
  read_decoder(c, json,
               {.sizes = {.vocab = 50272, .hidden = 768, .ffn = 3072, .layers = 12, .heads = 12},
                .ffn = "ffn_dim",
                .kv_heads = nullptr,
                .norm_eps = "layer_norm_eps",
                .default_eps = 1e-5,
                .activation = "activation_function",
                .default_activation = "relu",
                .tied_head = true,
                .rotates = false});
  check(json.integer("word_embed_proj_dim", c.hidden) == c.hidden, ErrorKind::bad_input,
        "word_embed_proj_dim differs from hidden_size, which is not supported");
  check(json.boolean("do_layer_norm_before", true), ErrorKind::bad_input,
        "do_layer_norm_before is false, which is not supported");
  check(json.boolean("layer_norm_elementwise_affine", true), ErrorKind::bad_input,
        "layer_norm_elementwise_affine is false, which is not supported");
  refuse(json, "_remove_final_layer_norm");
  c.qkv_bias = c.o_bias = c.mlp_bias = json.boolean("enable_bias", true);
  c.layer.assign(static_cast<size_t>(c.layers), {.rotates = false});
}

Program opt_embedding(const Config& c) {
  constexpr i64 kFirst = 2;
  Builder b("model.decoder.");
  const int ids = b.ids(), words = b.embed(ids, "embed_tokens", c.vocab, c.hidden);
  b.output(b.add(words, b.embed(b.positions(ids, kFirst), "embed_positions", c.max_positions + kFirst, c.hidden)));
  return b.finish();
}

Program opt_block(const Config& c, i64 layer) {
  Builder b(cat("model.decoder.layers.", layer, "."));
  int x = b.input(c.hidden);
  const int h = b.layer_norm(x, "self_attn_layer_norm", c.norm_eps);
  x = b.add(x, self_attention(b, c, layer, h, "self_attn.", "out_proj"));
  b.output(b.add(x, plain_mlp(b, c, b.layer_norm(x, "final_layer_norm", c.norm_eps), "fc1", "fc2")));
  return b.finish();
}

Program opt_head(const Config& c) {
  return layer_norm_head(c, "model.decoder.final_layer_norm", c.tied_head ? "model.decoder.embed_tokens" : "lm_head");
}

}  // namespace signround
