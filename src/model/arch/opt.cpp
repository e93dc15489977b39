// OPT: learned positions from 2 on, LayerNorms, ReLU. The 350m has narrower embeddings, and its norms lie behind the halves of a
// block.
#include "model/arch/parts.h"
#include "model/family.h"

namespace signround {

void read_opt(Config& c, const Json& json) {
  read_decoder(c, json,
               {.sizes = {.vocab = 50272, .hidden = 768, .ffn = 3072, .layers = 12, .heads = 12},
                .ffn = "ffn_dim",
                .kv_heads = nullptr,
                .activation = "activation_function",
                .default_activation = "relu",
                .tied_head = true,
                .rotates = false});
  c.norm_eps = 1e-5f;  // whatever the file says
  const i64 word_dim = in_range(json, "word_embed_proj_dim", 1, 1 << 20, c.hidden);
  c.word_dim = word_dim == c.hidden ? 0 : word_dim;
  c.post_norm = !json.boolean("do_layer_norm_before", true);
  c.final_norm = !c.post_norm && !json.boolean("_remove_final_layer_norm", false);
  check(json.boolean("layer_norm_elementwise_affine", true), ErrorKind::bad_input,
        "layer_norm_elementwise_affine is false, which is not supported");
  c.qkv_bias = c.o_bias = c.mlp_bias = json.boolean("enable_bias", true);
  c.layer.assign(static_cast<size_t>(c.layers), {.rotates = false});
  c.learned_positions = true;
}

Program opt_embedding(const Config& c) {
  constexpr i64 kFirst = 2;
  Builder b("model.decoder.");
  const int ids = b.ids();
  int words = b.embed(ids, "embed_tokens", c.vocab, c.word_dim > 0 ? c.word_dim : c.hidden);
  if (c.word_dim > 0) words = b.linear(words, "project_in", c.hidden);
  b.output(b.add(words, b.embed(b.positions(ids, kFirst), "embed_positions", c.max_positions + kFirst, c.hidden)));
  return b.finish();
}

Program opt_block(const Config& c, i64 layer) {
  Builder b(cat("model.decoder.layers.", layer, "."));
  const auto norm = [&](bool here, int x, const char* name) { return here ? b.layer_norm(x, name, c.norm_eps) : x; };
  int x = b.input(c.hidden);
  const int h = norm(!c.post_norm, x, "self_attn_layer_norm");
  x = norm(c.post_norm, b.add(x, self_attention(b, c, layer, h, "self_attn.", "out_proj")), "self_attn_layer_norm");
  const int g = norm(!c.post_norm, x, "final_layer_norm");
  b.output(norm(c.post_norm, b.add(x, plain_mlp(b, c, g, "fc1", "fc2")), "final_layer_norm"));
  return b.finish();
}

Program opt_head(const Config& c) {
  Builder b("");
  int x = b.input(c.hidden);
  if (c.final_norm) x = b.layer_norm(x, "model.decoder.final_layer_norm", c.norm_eps);
  if (c.word_dim > 0) x = b.linear(x, "model.decoder.project_out", c.word_dim);
  b.output(b.linear(x, c.tied_head ? "model.decoder.embed_tokens" : "lm_head", c.vocab));
  return b.finish();
}

}  // namespace signround
