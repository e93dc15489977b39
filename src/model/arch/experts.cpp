// Mixtures of experts: Llama's attention, and of several MLPs for each token those that a router chooses. Mixtral; Qwen 2 MoE
// with an expert that all tokens share; Qwen 3 MoE.
#include "model/arch/parts.h"
#include "model/family.h"

namespace signround {

void read_mixtral(Config& c, const Json& json) {
  read_decoder(c, json,
               {.sizes = {.vocab = 32000, .hidden = 4096, .ffn = 14336, .layers = 32, .heads = 32, .kv_heads = 8,
                          .positions = 1 << 17},
                .default_eps = 1e-5,
                .default_theta = 1e6});
  c.layer.assign(static_cast<size_t>(c.layers), {.window = read_window(json, 0)});
  read_experts(c, json, "intermediate_size", {.count = 8, .active = 2, .ffn = 14336, .normalized = true});
}

Program mixtral_block(const Config& c, i64 layer) {
  Builder b(cat("model.layers.", layer, "."));
  int x = b.input(c.hidden);
  x = b.add(x, self_attention(b, c, layer, b.rms(x, "input_layernorm", c.norm_eps)));
  const int h = b.rms(x, "post_attention_layernorm", c.norm_eps);
  b.output(b.add(x, routed_mlp(b, c, h, "block_sparse_moe.", "w1", "w3", "w2")));
  return b.finish();
}

namespace {

// Layers are sparse every so often, but those that mlp_only_layers names.
void read_qwen_moe(Config& c, const Json& json, const ExpertConfig& fallback) {
  read_experts(c, json, "moe_intermediate_size", fallback);
  c.experts.normalized = json.boolean("norm_topk_prob", false);
  const i64 step = in_range(json, "decoder_sparse_step", 1, 1 << 20, 1);
  for (size_t i = 0; i < c.layer.size(); ++i) c.layer[i].sparse = (static_cast<i64>(i) + 1) % step == 0;
  if (const Json* dense = json.find("mlp_only_layers"); dense && !dense->is_null())
    for (const Json& layer : dense->array())
      if (const i64 i = layer.integer(); i >= 0 && i < c.layers) c.layer[static_cast<size_t>(i)].sparse = false;
}

i64 qwen_window(const Json& json) { return json.boolean("use_sliding_window", false) ? read_window(json, 4096) : 0; }

}  // namespace

void read_qwen2_moe(Config& c, const Json& json) {
  read_decoder(c, json,
               {.sizes = {.vocab = 151936, .hidden = 2048, .ffn = 5632, .layers = 24, .heads = 16, .kv_heads = 16,
                          .positions = 1 << 15}});
  read_qwen_moe(c, json, {.count = 60, .active = 4, .ffn = 1408});
  c.qkv_bias = json.boolean("qkv_bias", true);
  c.experts.shared_ffn = in_range(json, "shared_expert_intermediate_size", 1, 1 << 22, 5632);
  const i64 below = in_range(json, "max_window_layers", 0, 1 << 20, 28);
  read_windows(c, json, qwen_window(json), [&](i64 layer) { return layer % 2 == 0 && layer < below; });
}

void read_qwen3_moe(Config& c, const Json& json) {
  read_decoder(c, json,
               {.sizes = {.vocab = 151936, .hidden = 2048, .ffn = 6144, .layers = 24, .heads = 32, .kv_heads = 4,
                          .positions = 1 << 15}});
  read_qwen_moe(c, json, {.count = 128, .active = 8, .ffn = 768});
  c.qkv_bias = c.o_bias = json.boolean("attention_bias", false);
  c.qk_norm = QkNorm::head;
  for (LayerConfig& layer : c.layer) layer.window = qwen_window(json);
}

Program qwen_moe_block(const Config& c, i64 layer) {
  Builder b(cat("model.layers.", layer, "."));
  int x = b.input(c.hidden);
  x = b.add(x, self_attention(b, c, layer, b.rms(x, "input_layernorm", c.norm_eps)));
  const int h = b.rms(x, "post_attention_layernorm", c.norm_eps);
  if (!c.layer_config(layer).sparse) {
    b.output(b.add(x, gated_mlp(b, c, h)));
    return b.finish();
  }
  int y = routed_mlp(b, c, h, "mlp.", "gate_proj", "up_proj", "down_proj");
  if (c.experts.shared_ffn > 0) {
    const int shared = gated_mlp(b, c, h, "mlp.shared_expert.", c.experts.shared_ffn);
    y = b.add(y, b.sigmoid_gate(shared, b.router(h, "mlp.shared_expert_gate", 1)));
  }
  b.output(b.add(x, y));
  return b.finish();
}

}  // namespace signround
