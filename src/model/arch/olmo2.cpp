// OLMo 2: no norm before the halves of a block but one behind each, and one on the whole rows of q and k.
#include "model/arch/parts.h"
#include "model/family.h"

namespace signround {

void read_olmo2(Config& c, const Json& json) {
  read_decoder(c, json,
               {.sizes = {.vocab = 50304, .hidden = 4096, .ffn = 11008, .layers = 32, .heads = 32}, .default_eps = 1e-5});
  c.qkv_bias = c.o_bias = json.boolean("attention_bias", false);
  c.qk_norm = QkNorm::all;
}

Program olmo2_block(const Config& c, i64 layer) {
  Builder b(cat("model.layers.", layer, "."));
  int x = b.input(c.hidden);
  x = b.add(x, b.rms(self_attention(b, c, layer, x), "post_attention_layernorm", c.norm_eps));
  x = b.add(x, b.rms(gated_mlp(b, c, x), "post_feedforward_layernorm", c.norm_eps));
  b.output(x);
  return b.finish();
}

}  // namespace signround
