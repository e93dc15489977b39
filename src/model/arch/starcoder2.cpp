// StarCoder2: Llama with LayerNorms, biases and an MLP without a gate; every layer may have a window.
#include "model/arch/parts.h"
#include "model/family.h"

namespace signround {

void read_starcoder2(Config& c, const Json& json) {
  read_decoder(c, json,
               {.sizes = {.vocab = 49152, .hidden = 3072, .ffn = 12288, .layers = 30, .heads = 24, .kv_heads = 2,
                          .positions = 4096},
                .norm_eps = "norm_epsilon",
                .default_eps = 1e-5,
                .default_activation = "gelu_pytorch_tanh",
                .tied_head = true});
  c.qkv_bias = c.o_bias = c.mlp_bias = json.boolean("use_bias", true);
  c.layer.assign(static_cast<size_t>(c.layers), {.window = read_window(json, 0)});
}

Program starcoder2_block(const Config& c, i64 layer) {
  Builder b(cat("model.layers.", layer, "."));
  int x = b.input(c.hidden);
  x = b.add(x, self_attention(b, c, layer, b.layer_norm(x, "input_layernorm", c.norm_eps)));
  x = b.add(x, plain_mlp(b, c, b.layer_norm(x, "post_attention_layernorm", c.norm_eps), "mlp.c_fc", "mlp.c_proj"));
  b.output(x);
  return b.finish();
}

Program starcoder2_head(const Config& c) {
  return layer_norm_head(c, "model.norm", "model.embed_tokens");
}

}  // namespace signround
