// Baichuan: Llama with q, k and v in one linear, W_pack. The 13B has ALiBi and tells so by having no max_position_embeddings.
// Baichuan 2 divides each row of its head by its length; its vocabulary tells it, or the z_loss that it was trained with.
#include "model/arch/parts.h"
#include "model/family.h"

namespace signround {

void read_baichuan(Config& c, const Json& json) {
  constexpr i64 kSecondVocabulary = 125696;
  read_decoder(c, json, {.kv_heads = nullptr, .positions = present(json, "max_position_embeddings", "model_max_length")});
  c.unit_head = c.vocab == kSecondVocabulary || json.find("z_loss_weight");
  c.alibi = !json.find("max_position_embeddings");
}

Program baichuan_head(const Config& c) {
  if (!c.unit_head) return llama_head(c);
  Builder b("");
  b.output(b.unit_linear(b.rms(b.input(c.hidden), "model.norm", c.norm_eps), "lm_head", c.vocab));
  return b.finish();
}

Program baichuan_block(const Config& c, i64 layer) {
  Builder b(cat("model.layers.", layer, "."));
  int x = b.input(c.hidden);
  const int h = b.rms(x, "input_layernorm", c.norm_eps);
  x = b.add(x, fused_attention(b, c, layer, h, "self_attn.W_pack", "self_attn.o_proj", 1));
  x = b.add(x, gated_mlp(b, c, b.rms(x, "post_attention_layernorm", c.norm_eps)));
  b.output(x);
  return b.finish();
}

}  // namespace signround
