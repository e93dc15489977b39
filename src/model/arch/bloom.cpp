// BLOOM: ALiBi, a LayerNorm behind the embedding, q, k and v of each head side by side in one linear.
#include "model/arch/parts.h"
#include "model/family.h"

namespace signround {

void read_bloom(Config& c, const Json& json) {
  read_decoder(c, json,
               {.sizes = {.vocab = 250880, .hidden = 64, .layers = 2, .heads = 8},
                .hidden = present(json, "n_embed", "hidden_size"),
                .layers = present(json, "n_layer", "num_hidden_layers"),
                .heads = present(json, "n_head", "num_attention_heads"),
                .ffn = nullptr,
                .kv_heads = nullptr,
                .positions = "seq_length",
                .norm_eps = "layer_norm_epsilon",
                .default_eps = 1e-5,
                .default_activation = "gelu_new",
                .tied_head = true,
                .rotates = false});
  refuse(json, "apply_residual_connection_post_layernorm");
  c.alibi = c.qkv_bias = c.o_bias = c.mlp_bias = true;
}

Program bloom_embedding(const Config& c) {
  Builder b("transformer.");
  const int x = b.embed(b.ids(), "word_embeddings", c.vocab, c.hidden);
  b.output(b.layer_norm(x, "word_embeddings_layernorm", c.norm_eps));
  return b.finish();
}

Program bloom_block(const Config& c, i64 layer) {
  Builder b(cat("transformer.h.", layer, "."));
  int x = b.input(c.hidden);
  const int h = b.layer_norm(x, "input_layernorm", c.norm_eps);
  x = b.add(x, fused_attention(b, c, layer, h, "self_attention.query_key_value", "self_attention.dense", c.heads));
  const int g = b.layer_norm(x, "post_attention_layernorm", c.norm_eps);
  b.output(b.add(x, plain_mlp(b, c, g, "mlp.dense_h_to_4h", "mlp.dense_4h_to_h")));
  return b.finish();
}

Program bloom_head(const Config& c) {
  return layer_norm_head(c, "transformer.ln_f", "transformer.word_embeddings");
}

}  // namespace signround
