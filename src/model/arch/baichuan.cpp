// Baichuan: Llama with q, k and v in one linear, W_pack. The 13B has ALiBi and tells so by having no max_position_embeddings.
#include "model/arch/parts.h"
#include "model/family.h"

namespace signround {

void read_baichuan(Config& c, const Json& json) {
  constexpr i64 kSecondVocabulary = 125696;  // Baichuan 2, whose head divides each of its rows by its length
  read_decoder(c, json, {.kv_heads = nullptr, .positions = present(json, "max_position_embeddings", "model_max_length")});
  check(c.vocab != kSecondVocabulary, ErrorKind::bad_input, "vocab_size ", c.vocab,
        " is that of Baichuan 2, whose normalized head is not supported");
  c.alibi = !json.find("max_position_embeddings");
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
