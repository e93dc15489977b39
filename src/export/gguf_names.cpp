#include "export/gguf_names.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <span>

namespace signround {
namespace {

constexpr GgufArchitecture kArchitectures[] = {{"LlamaForCausalLM", "llama", true},
                                               {"MistralForCausalLM", "llama", true},
                                               {"Qwen2ForCausalLM", "qwen2", false},
                                               {"Qwen3ForCausalLM", "qwen3", false}};

constexpr std::pair<std::string_view, std::string_view> kNames[] = {
    {"model.embed_tokens", "token_embd"},     {"model.norm", "output_norm"},      {"lm_head", "output"},
    {"input_layernorm", "attn_norm"},         {"post_attention_layernorm", "ffn_norm"},
    {"self_attn.q_proj", "attn_q"},           {"self_attn.k_proj", "attn_k"},     {"self_attn.v_proj", "attn_v"},
    {"self_attn.o_proj", "attn_output"},      {"self_attn.q_norm", "attn_q_norm"}, {"self_attn.k_norm", "attn_k_norm"},
    {"mlp.gate_proj", "ffn_gate"},            {"mlp.up_proj", "ffn_up"},          {"mlp.down_proj", "ffn_down"}};

double rope_theta(const Json& json) {
  const Json* parameters = json.find("rope_parameters");
  if (parameters && parameters->kind() == Json::Kind::object && parameters->find("rope_theta"))
    return parameters->number("rope_theta");
  return json.number("rope_theta", 10000.0);
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
    if (config.architecture == a.name) return a;
    known += cat(known.empty() ? "" : ", ", a.name);
  }
  fail(ErrorKind::usage, "format gguf is written for ", known, ", not for ", config.architecture,
       "; the nearest is --format auto_round");
}

std::string gguf_name(const std::string& tensor) {
  if (tensor.ends_with("rotary_emb.inv_freq")) return "";
  const std::size_t dot = tensor.rfind('.');
  std::string block, name = tensor.substr(0, dot);
  constexpr std::string_view kPrefix = "model.layers.";
  if (name.starts_with(kPrefix)) {
    const std::size_t end = name.find('.', kPrefix.size());
    block = cat("blk.", name.substr(kPrefix.size(), end - kPrefix.size()), ".");
    name = end == std::string::npos ? "" : name.substr(end + 1);
  }
  for (const auto& [ours, theirs] : kNames)
    if (name == ours) return cat(block, theirs, tensor.substr(dot));
  fail(ErrorKind::usage, "format gguf has no name for the tensor ", quote(tensor), "; the nearest is --format auto_round");
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

GgufValues gguf_values(const Config& c, const GgufArchitecture& architecture, const Json& json, u32 file_type) {
  const std::string arch = architecture.gguf;
  GgufValues values = {{"general.architecture", arch},
                       {"general.name", json.string("_name_or_path", "").empty() ? c.architecture : json.string("_name_or_path")},
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
  number("rope.dimension_count", c.head_dim);
  number("vocab_size", c.vocab);
  values.emplace_back(arch + ".attention.layer_norm_rms_epsilon", c.norm_eps);
  values.emplace_back(arch + ".rope.freq_base", static_cast<float>(rope_theta(json)));
  return values;
}

std::vector<float> gguf_rope_factors(const Config& c, const GgufArchitecture& architecture, const Json& json) {
  const double theta = rope_theta(json);
  std::vector<float> factors;
  bool scaled = c.rope.scale != 1 || !c.rope.long_inv_freq.empty();
  check(!scaled && static_cast<i64>(c.rope.inv_freq.size()) * 2 == c.head_dim, ErrorKind::usage,
        "format gguf is not written for this kind of rope scaling; the nearest is --format auto_round");
  for (std::size_t i = 0; i < c.rope.inv_freq.size(); ++i) {
    const double plain = std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(c.head_dim));
    factors.push_back(static_cast<float>(plain / c.rope.inv_freq[i]));
    scaled |= std::abs(factors.back() - 1) > 1e-4f;
  }
  if (!scaled) return {};
  check(architecture.permuted, ErrorKind::usage, "format gguf is not written for rope scaling in ", c.architecture,
        "; the nearest is --format auto_round");
  return factors;
}

}  // namespace signround
