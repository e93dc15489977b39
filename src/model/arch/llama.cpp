// Llama 1, 2, 3 and everything with their layout: grouped-query attention, rotary positions, RMSNorm, SwiGLU.
#include "model/arch/parts.h"
#include "model/family.h"

namespace signround {

void read_llama(Config& c, const Json& json) {
  read_decoder(c, json, {.sizes = {.vocab = 32000, .hidden = 4096, .ffn = 11008, .layers = 32, .heads = 32}});
  c.qkv_bias = c.o_bias = json.boolean("attention_bias", false);
  c.mlp_bias = json.boolean("mlp_bias", false);
}

// Mistral: every layer has a window.
void read_mistral(Config& c, const Json& json) {
  read_decoder(c, json,
               {.sizes = {.vocab = 32000, .hidden = 4096, .ffn = 14336, .layers = 32, .heads = 32, .kv_heads = 8,
                          .positions = 1 << 17}});
  c.layer.assign(static_cast<size_t>(c.layers), {.window = read_window(json, 4096)});
}

namespace {

// What Qwen 2 and 3 share: the upper layers may have a window.
void read_qwen(Config& c, const Json& json, i64 head_dim) {
  read_decoder(c, json,
               {.sizes = {.vocab = 151936, .hidden = 4096, .ffn = 22016, .layers = 32, .heads = 32, .kv_heads = 32,
                          .head_dim = head_dim, .positions = 1 << 15}});
  const i64 window = json.boolean("use_sliding_window", false) ? read_window(json, 4096) : 0;
  const i64 first = in_range(json, "max_window_layers", 0, 1 << 20, 28);
  read_windows(c, json, window, [&](i64 layer) { return layer >= first; });
}

}  // namespace

// Qwen 2 and 2.5: biases on q, k and v alone.
void read_qwen2(Config& c, const Json& json) {
  read_qwen(c, json, 0);
  c.qkv_bias = true;
}

// Qwen 3: a norm on each head of q and k instead of the biases.
void read_qwen3(Config& c, const Json& json) {
  read_qwen(c, json, 128);
  c.qkv_bias = c.o_bias = json.boolean("attention_bias", false);
  c.qk_norm = QkNorm::head;
}

// SmolLM 3: some layers, every fourth by default, do not rotate; those may have a window.
void read_smollm3(Config& c, const Json& json) {
  read_decoder(c, json,
               {.sizes = {.vocab = 128256, .hidden = 2048, .ffn = 11008, .layers = 36, .heads = 16, .kv_heads = 4,
                          .positions = 1 << 15},
                .tied_head = true,
                .default_theta = 2e6});
  c.qkv_bias = c.o_bias = json.boolean("attention_bias", false);
  c.mlp_bias = json.boolean("mlp_bias", false);
  const Json* listed = json.find("no_rope_layers");
  const i64 interval = in_range(json, "no_rope_layer_interval", 1, 1 << 20, 4);
  const Json::Array* rotates = listed && !listed->is_null() ? &listed->array() : nullptr;
  check(!rotates || static_cast<i64>(rotates->size()) >= c.layers, ErrorKind::bad_input, "no_rope_layers is shorter than ",
        c.layers, " layers");
  c.layer.resize(static_cast<size_t>(c.layers));
  for (size_t i = 0; i < c.layer.size(); ++i)
    c.layer[i].rotates = rotates ? (*rotates)[i].integer() != 0 : (static_cast<i64>(i) + 1) % interval != 0;
  const i64 window = json.boolean("use_sliding_window", false) ? read_window(json, 0) : 0;
  read_windows(c, json, window, [&](i64 layer) { return !c.layer_config(layer).rotates; });
}

Program llama_embedding(const Config& c) { return word_embedding(c, c.base.c_str(), "embed_tokens"); }

Program llama_block(const Config& c, i64 layer) {
  Builder b(cat("model.layers.", layer, "."));
  int x = b.input(c.hidden);
  x = b.add(x, self_attention(b, c, layer, b.rms(x, "input_layernorm", c.norm_eps, c.norm_plus)));
  x = b.add(x, gated_mlp(b, c, b.rms(x, "post_attention_layernorm", c.norm_eps, c.norm_plus)));
  b.output(x);
  return b.finish();
}

Program llama_head(const Config& c) {
  Builder b("");
  const int h = b.rms(b.input(c.hidden), c.base + "norm", c.norm_eps, c.norm_plus);
  const int logits = b.linear(h, c.tied_head ? c.base + "embed_tokens" : "lm_head", c.vocab);
  b.output(c.logit_softcap > 0 ? b.softcap(logits, c.logit_softcap) : logits);
  return b.finish();
}

}  // namespace signround
