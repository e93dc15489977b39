#include "export/gguf_names.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <span>

namespace signround {
namespace {

constexpr GgufArchitecture kArchitectures[] = {
    {"LlamaForCausalLM", "llama", true},
    {"MistralForCausalLM", "llama", true},
    {"Qwen2ForCausalLM", "qwen2", false},
    {"Qwen3ForCausalLM", "qwen3", false},
    {"Gemma2ForCausalLM", "gemma2", false, true, Activation::gelu_tanh, 2, 46},
    {"Gemma3ForCausalLM", "gemma3", false, true, Activation::gelu_tanh, 6, 62},
    {"Phi3ForCausalLM", "phi3", false},
    {.name = "MixtralForCausalLM", .gguf = "llama", .permuted = true, .experts = true, .normalized = true},
    {.name = "Qwen2MoeForCausalLM", .gguf = "qwen2moe", .permuted = false, .experts = true},
    {.name = "Qwen3MoeForCausalLM", .gguf = "qwen3moe", .permuted = false, .experts = true, .normalized = true}};

constexpr std::pair<std::string_view, std::string_view> kNames[] = {
    {"model.embed_tokens", "token_embd"},     {"model.norm", "output_norm"},      {"lm_head", "output"},
    {"input_layernorm", "attn_norm"},         {"post_attention_layernorm", "ffn_norm"},
    {"self_attn.q_proj", "attn_q"},           {"self_attn.k_proj", "attn_k"},     {"self_attn.v_proj", "attn_v"},
    {"self_attn.o_proj", "attn_output"},      {"self_attn.q_norm", "attn_q_norm"}, {"self_attn.k_norm", "attn_k_norm"},
    {"mlp.gate_proj", "ffn_gate"},            {"mlp.up_proj", "ffn_up"},          {"mlp.down_proj", "ffn_down"},
    {"self_attn.qkv_proj", "attn_qkv"},       {"mlp.gate_up_proj", "ffn_up"},
    // Experts, without their numbers.
    {"mlp.gate", "ffn_gate_inp"},                     {"block_sparse_moe.gate", "ffn_gate_inp"},
    {"mlp.experts.gate_proj", "ffn_gate_exps"},       {"block_sparse_moe.experts.w1", "ffn_gate_exps"},
    {"mlp.experts.up_proj", "ffn_up_exps"},           {"block_sparse_moe.experts.w3", "ffn_up_exps"},
    {"mlp.experts.down_proj", "ffn_down_exps"},       {"block_sparse_moe.experts.w2", "ffn_down_exps"},
    {"mlp.shared_expert_gate", "ffn_gate_inp_shexp"}, {"mlp.shared_expert.gate_proj", "ffn_gate_shexp"},
    {"mlp.shared_expert.up_proj", "ffn_up_shexp"},    {"mlp.shared_expert.down_proj", "ffn_down_shexp"}};

constexpr std::pair<std::string_view, std::string_view> kFourNorms[] = {{"post_attention_layernorm", "post_attention_norm"},
                                                                        {"pre_feedforward_layernorm", "ffn_norm"},
                                                                        {"post_feedforward_layernorm", "post_ffw_norm"}};

constexpr std::string_view kExperts = ".experts.";

template <class... Parts>
void require(bool possible, const Parts&... parts) {
  check(possible, ErrorKind::usage, "format gguf: llama.cpp has no ", parts..., "; the nearest is --format auto_round");
}

// What llama.cpp takes for granted in an architecture.
void require_numbers(const Config& c, const GgufArchitecture& a) {
  require(c.activation == a.activation, "activation but one in ", c.architecture);
  if (a.experts) {
    require(c.experts.normalized == a.normalized, "weights of experts that sum to ", a.normalized ? "less than 1" : "1", " in ",
            c.architecture);
    for (const LayerConfig& layer : c.layer)
      require(layer.sparse && layer.window == 0, "layers without experts, or with a window, in ", c.architecture);
  }
  if (!a.four_norms) return;
  require(!c.qkv_bias && !c.o_bias, "biases in ", c.architecture);
  const i64 width = c.layers == a.wide_layers ? c.hidden / c.heads : c.head_dim;
  require(std::abs(c.attention_scale * std::sqrt(static_cast<float>(width)) - 1) < 1e-5f,
          "query_pre_attn_scalar but ", width, " in a model of this size");
  const bool second = a.wide_layers == 46;  // Gemma 2 always caps both, Gemma 3 never the scores
  require((c.attention_softcap > 0) == second && (c.logit_softcap > 0 || !second), "such softcaps in ", c.architecture);
}

// Every so many layers one has no window; 0: none has one. Throws where there is no such number.
i64 window_period(const Config& c) {
  const auto windowed = [&](i64 layer) { return c.layer_config(layer).window > 0; };
  i64 period = 1;
  while (period <= c.layers && windowed(period - 1)) ++period;
  if (period > c.layers) return c.layers + 1;
  bool any = false;
  for (i64 i = 0; i < c.layers; ++i) {
    any |= windowed(i);
    require(period == 1 || windowed(i) == ((i + 1) % period != 0), "such a pattern of windows");
  }
  require(period > 1 || !any, "such a pattern of windows");
  return any ? period : 0;
}

double rope_theta(const Json& json, const GgufArchitecture& architecture) {
  const Json* parameters = json.find("rope_parameters");
  if (parameters && parameters->kind() == Json::Kind::object) {
    if (const Json* global = parameters->find("full_attention")) parameters = global;
    if (parameters->find("rope_theta")) return parameters->number("rope_theta");
  }
  return json.number("rope_theta", std::string_view(architecture.gguf) == "gemma3" ? 1e6 : 1e4);
}

// theta^(-2i/d) / inv_freq[i]
std::vector<float> slower(const std::vector<double>& inv_freq, double theta) {
  std::vector<float> factors;
  for (std::size_t i = 0; i < inv_freq.size(); ++i)
    factors.push_back(
        static_cast<float>(std::pow(theta, -static_cast<double>(i) / static_cast<double>(inv_freq.size())) / inv_freq[i]));
  return factors;
}

bool all_near(const std::vector<float>& factors, float value) {
  return std::all_of(factors.begin(), factors.end(), [&](float f) { return std::abs(f / value - 1) < 1e-4f; });
}

// out[head, i, j] = rows[head, j, i], of `outer` x `inner` rows a head.
std::vector<std::byte> transposed(std::span<const std::byte> rows, i64 count, i64 outer, i64 inner) {
  const i64 bytes = static_cast<i64>(rows.size()) / count, dim = outer * inner;
  std::vector<std::byte> out(rows.size());
  for (i64 row = 0; row < count; ++row) {
    const i64 i = row % dim / inner, j = row % inner, from = row / dim * dim + j * outer + i;
    std::memcpy(out.data() + row * bytes, rows.data() + from * bytes, static_cast<std::size_t>(bytes));
  }
  return out;
}

}  // namespace

const GgufArchitecture& gguf_architecture(const Config& config) {
  std::string known;
  for (const GgufArchitecture& a : kArchitectures) {
    if (config.architecture == a.name) {
      require_numbers(config, a);
      return a;
    }
    known += cat(known.empty() ? "" : ", ", a.name);
  }
  fail(ErrorKind::usage, "format gguf is written for ", known, ", not for ", config.architecture,
       "; the nearest is --format auto_round");
}

std::string gguf_name(const std::string& tensor, const GgufArchitecture& architecture) {
  if (tensor.ends_with("rotary_emb.inv_freq")) return "";
  const std::size_t dot = tensor.rfind('.');
  std::string block, name = tensor.substr(0, dot);
  constexpr std::string_view kPrefix = "model.layers.";
  if (name.starts_with(kPrefix)) {
    const std::size_t end = name.find('.', kPrefix.size());
    block = cat("blk.", name.substr(kPrefix.size(), end - kPrefix.size()), ".");
    name = end == std::string::npos ? "" : name.substr(end + 1);
  }
  if (expert_of(tensor) >= 0) {
    const std::size_t number = name.find(kExperts) + kExperts.size();
    name.erase(number, name.find('.', number) + 1 - number);
  }
  if (architecture.four_norms)
    for (const auto& [ours, theirs] : kFourNorms)
      if (name == ours) return cat(block, theirs, tensor.substr(dot));
  for (const auto& [ours, theirs] : kNames)
    if (name == ours) return cat(block, theirs, tensor.substr(dot));
  fail(ErrorKind::usage, "format gguf has no name for the tensor ", quote(tensor), "; the nearest is --format auto_round");
}

i64 expert_of(const std::string& tensor) {
  const std::size_t at = tensor.find(kExperts);
  i64 expert = -1;
  if (at == std::string::npos) return expert;
  const char* digits = tensor.data() + at + kExperts.size();
  const auto [end, error] = std::from_chars(digits, tensor.data() + tensor.size(), expert);
  return error == std::errc() && *end == '.' ? expert : -1;
}

std::vector<std::byte> to_pairs(std::span<const std::byte> rows, i64 count, i64 head_dim) {
  return transposed(rows, count, head_dim / 2, 2);
}
std::vector<std::byte> to_halves(std::span<const std::byte> rows, i64 count, i64 head_dim) {
  return transposed(rows, count, 2, head_dim / 2);
}
bool rotates(const std::string& tensor) {
  return tensor.find("self_attn.q_proj.") != std::string::npos || tensor.find("self_attn.k_proj.") != std::string::npos;
}

GgufValues gguf_values(const Config& c, const GgufArchitecture& architecture, u32 file_type) {
  const std::string arch = architecture.gguf;
  GgufValues values = {{"general.architecture", arch},
                       {"general.file_type", file_type},
                       {"general.quantization_version", u32{2}}};
  const auto number = [&](const char* key, i64 value) { values.emplace_back(cat(arch, ".", key), static_cast<u32>(value)); };
  number("block_count", c.layers);
  number("context_length", c.max_positions);
  number("embedding_length", c.hidden);
  number("feed_forward_length", c.ffn);
  number("attention.head_count", c.heads);
  number("attention.head_count_kv", c.kv_heads);
  number("attention.key_length", c.head_dim);
  number("attention.value_length", c.head_dim);
  number("rope.dimension_count", 2 * static_cast<i64>(c.rope.inv_freq.size()));
  number("vocab_size", c.vocab);
  values.emplace_back(arch + ".attention.layer_norm_rms_epsilon", c.norm_eps);
  if (architecture.experts) {
    number("expert_count", c.experts.count);
    number("expert_used_count", c.experts.active);
    number("expert_feed_forward_length", c.experts.ffn);
    if (c.experts.shared_ffn > 0) number("expert_shared_feed_forward_length", c.experts.shared_ffn);
  }
  if (c.attention_softcap > 0) values.emplace_back(arch + ".attn_logit_softcapping", c.attention_softcap);
  if (c.logit_softcap > 0) values.emplace_back(arch + ".final_logit_softcapping", c.logit_softcap);
  if (architecture.window_period > 0) {
    const i64 period = window_period(c);
    i64 window = 0;
    for (i64 i = 0; i < c.layers; ++i) window = std::max(window, c.layer_config(i).window);
    require(period > 0 || arch == "gemma3", "Gemma 2 without windows");
    if (period > 0) number("attention.sliding_window", window);
    if (period > 0 && period != architecture.window_period) number("attention.sliding_window_pattern", period);
  } else if (arch == "phi3") {
    number("attention.sliding_window", c.layer_config(0).window);  // 0 is how llama.cpp tells Phi-4 from Phi-3
  }
  return values;
}

GgufRope gguf_rope(const Config& c, const GgufArchitecture& architecture, const Json& json) {
  const std::string arch = architecture.gguf;
  const double theta = rope_theta(json, architecture);
  GgufRope rope;
  rope.values.emplace_back(arch + ".rope.freq_base", static_cast<float>(theta));
  const std::vector<float> factors = slower(c.rope.inv_freq, theta);
  require(c.rope.growth == 0, "dynamic rope scaling");
  if (!c.rope.long_inv_freq.empty()) {
    require(arch == "phi3", "longrope in ", c.architecture);
    rope.values.emplace_back(arch + ".rope.scaling.original_context_length", static_cast<u32>(c.rope.long_from));
    rope.values.emplace_back(arch + ".rope.scaling.attn_factor", static_cast<float>(c.rope.scale));
    rope.factors = {{"rope_factors_short.weight", factors}, {"rope_factors_long.weight", slower(c.rope.long_inv_freq, theta)}};
    return rope;
  }
  require(c.rope.scale == 1, "this kind of rope scaling in ", c.architecture);
  require(arch == "phi3" || 2 * static_cast<i64>(c.rope.inv_freq.size()) == c.head_dim, "heads that rotate in part in ",
          c.architecture);
  require(c.local_rope.inv_freq.empty() || all_near(slower(c.local_rope.inv_freq, 10000), 1),
          "rotary base but 10000 in layers with a window");
  if (all_near(factors, 1)) return rope;
  if (all_near(factors, factors[0])) {
    rope.values.emplace_back(arch + ".rope.scaling.type", std::string("linear"));
    rope.values.emplace_back(arch + ".rope.scaling.factor", factors[0]);
    return rope;
  }
  require(architecture.permuted, "this kind of rope scaling in ", c.architecture);
  rope.factors["rope_freqs.weight"] = factors;
  return rope;
}

}  // namespace signround
