// Gemma: embeddings scaled by sqrt(D), norms that store w - 1, GELU. Gemma 2: four norms a block, softcaps, every other layer
// with a window. Gemma 3: a norm on each head of q and k, and a rotary base of their own for layers with a window.
#include <cmath>

#include "model/arch/parts.h"
#include "model/family.h"
#include "model/rope.h"

namespace signround {
namespace {

// Gemma's own files call the activation plain "gelu" in hidden_act and mean the tanh form; later ones have hidden_activation.
void read_gemma_decoder(Config& c, const Json& json, const Sizes& sizes, bool rotates = true) {
  const Json* activation = json.find("hidden_activation");
  const bool named = activation && !activation->is_null();
  const bool legacy = !named && json.string("hidden_act", "") == "gelu";
  read_decoder(c, json,
               {.sizes = sizes,
                .activation = named || legacy ? "hidden_activation" : "hidden_act",
                .default_activation = "gelu_pytorch_tanh",
                .tied_head = true,
                .rotates = rotates});
  refuse(json, "use_bidirectional_attention");
  c.norm_plus = 1;
  c.embed_scale = std::sqrt(static_cast<float>(c.hidden));
  c.qkv_bias = c.o_bias = json.boolean("attention_bias", false);
}

// What Gemma 2 and 3 share. logit_softcap: where the file has none.
void read_gemma_later(Config& c, const Json& json, double logit_softcap) {
  c.attention_scale = static_cast<float>(1 / std::sqrt(positive(json, "query_pre_attn_scalar", 256)));
  c.logit_softcap = static_cast<float>(positive_or_none(json, "final_logit_softcapping", logit_softcap));
}

}  // namespace

void read_gemma(Config& c, const Json& json) {
  read_gemma_decoder(c, json,
                     {.vocab = 256000, .hidden = 3072, .ffn = 24576, .layers = 28, .heads = 16, .kv_heads = 16, .head_dim = 256,
                      .positions = 8192});
}

void read_gemma2(Config& c, const Json& json) {
  read_gemma_decoder(c, json,
                     {.vocab = 256000, .hidden = 2304, .ffn = 9216, .layers = 26, .heads = 8, .kv_heads = 4, .head_dim = 256,
                      .positions = 8192});
  read_gemma_later(c, json, 30);
  c.attention_softcap = static_cast<float>(positive_or_none(json, "attn_logit_softcapping", 50));
  read_windows(c, json, read_window(json, 4096), [](i64 layer) { return layer % 2 == 0; });
}

void read_gemma3(Config& c, const Json& json) {
  read_gemma_decoder(c, json,
                     {.vocab = 262208, .hidden = 2304, .ffn = 9216, .layers = 26, .heads = 8, .kv_heads = 4, .head_dim = 256,
                      .positions = 1 << 17},
                     false);
  read_gemma_later(c, json, 0);  // scores have no cap, whatever the file says
  c.qk_norm = QkNorm::head;
  const i64 period = in_range(json, "sliding_window_pattern", 1, 1 << 20, 6);
  read_windows(c, json, read_window(json, 4096), [&](i64 layer) { return (layer + 1) % period != 0; });
  // Newer files have both tables in rope_parameters; older ones scale the global one alone.
  const Json& parameters = object_or_empty(json, "rope_parameters");
  const Json &global = object_or_empty(parameters, "full_attention"), &local = object_or_empty(parameters, "sliding_attention");
  const Json& older = object_or_empty(json, "rope_scaling");
  const double theta = positive(json, "rope_theta", 1e6), base = positive(json, "rope_local_base_freq", 10000);
  c.rope = read_rope(json, older.object().empty() ? global : older, positive(global, "rope_theta", theta), c.head_dim);
  c.local_rope = read_rope(json, local, positive(local, "rope_theta", base), c.head_dim);
}

// Gemma 3 that sees: its text model is all that is tuned; what is beside it stays as it is.
void read_gemma3_with_vision(Config& c, const Json& json) {
  Json text = json.at("text_config");
  text.set("tie_word_embeddings", json.boolean("tie_word_embeddings", true));
  within("text_config", [&] { read_gemma3(c, text); });
  c.base = "model.language_model.";
}

Program gemma2_block(const Config& c, i64 layer) {
  Builder b(cat(c.base, "layers.", layer, "."));
  const auto norm = [&](int x, const char* name) { return b.rms(x, name, c.norm_eps, c.norm_plus); };
  int x = b.input(c.hidden);
  x = b.add(x, norm(self_attention(b, c, layer, norm(x, "input_layernorm")), "post_attention_layernorm"));
  x = b.add(x, norm(gated_mlp(b, c, norm(x, "pre_feedforward_layernorm")), "post_feedforward_layernorm"));
  b.output(x);
  return b.finish();
}

}  // namespace signround
