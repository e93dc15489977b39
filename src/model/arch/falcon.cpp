// Falcon: q, k and v in one linear: all q then one k and v (7B), or the q of each KV head with its k and v (40B, "new decoder");
// attention and MLP side by side behind one LayerNorm or one each; the oldest have them one after the other.
#include "model/arch/parts.h"
#include "model/family.h"

namespace signround {

void read_falcon(Config& c, const Json& json) {
  read_decoder(c, json,
               {.sizes = {.vocab = 65024, .hidden = 4544, .layers = 32, .heads = 71},
                .hidden = present(json, "n_embed", "hidden_size"),
                .ffn = "ffn_hidden_size",
                .kv_heads = "num_kv_heads",
                .norm_eps = "layer_norm_epsilon",
                .default_eps = 1e-5,
                .activation = "activation",
                .default_activation = "gelu",
                .tied_head = true});
  c.alibi = c.falcon_alibi = json.boolean("alibi", false);
  const auto unless_null = [&](const char* key) { return !json.find(key) || json.boolean(key, false); };
  const bool newer = json.boolean("new_decoder_architecture", false);
  if (!newer) c.kv_heads = unless_null("multi_query") ? 1 : c.heads;
  c.parallel = unless_null("parallel_attn");
  check(c.parallel || !newer, ErrorKind::bad_input, "parallel_attn is false in the new decoder, which is not supported");
  c.two_norms = newer && json.integer("num_ln_in_parallel_attn", 2) == 2;
  c.qkv_bias = c.o_bias = c.mlp_bias = json.boolean("bias", false);
}

Program falcon_embedding(const Config& c) { return word_embedding(c, "transformer.", "word_embeddings"); }

Program falcon_block(const Config& c, i64 layer) {
  Builder b(cat("transformer.h.", layer, "."));
  const auto norm = [&](int x, const char* name) { return b.layer_norm(x, name, c.norm_eps); };
  const int x = b.input(c.hidden), h = norm(x, c.two_norms ? "ln_attn" : "input_layernorm");
  const int attended = fused_attention(b, c, layer, h, "self_attention.query_key_value", "self_attention.dense", c.kv_heads);
  const int middle = b.add(x, attended);
  const int g = !c.parallel ? norm(middle, "post_attention_layernorm") : c.two_norms ? norm(x, "ln_mlp") : h;
  b.output(b.add(middle, plain_mlp(b, c, g, "mlp.dense_h_to_4h", "mlp.dense_4h_to_h")));
  return b.finish();
}

Program falcon_head(const Config& c) {
  return layer_norm_head(c, "transformer.ln_f", "transformer.word_embeddings");
}

}  // namespace signround
