#include "model/config.h"

#include <cmath>
#include <numbers>

namespace signround {
namespace {

i64 in_range(const Json& json, const char* key, i64 low, i64 high, i64 fallback = -1) {
  const i64 value = fallback < 0 ? json.integer(key) : json.integer(key, fallback);
  check(value >= low && value <= high, ErrorKind::bad_input, key, " is ", value, "; it must lie in ", low, "..", high);
  return value;
}

double positive(const Json& json, const char* key, double fallback) {
  const double value = json.number(key, fallback);
  check(value > 0 && std::isfinite(value), ErrorKind::bad_input, key, " is ", value, "; it must be positive");
  return value;
}

Activation read_activation(const std::string& name) {
  if (name == "silu" || name == "swish") return Activation::silu;
  if (name == "gelu_pytorch_tanh" || name == "gelu_new") return Activation::gelu_tanh;
  fail(ErrorKind::bad_input, "hidden_act \"", name, "\" is not supported; supported: silu, gelu_pytorch_tanh");
}

DType read_dtype(const std::string& name) {
  if (name == "float32") return DType::f32;
  if (name == "float16") return DType::f16;
  if (name == "bfloat16") return DType::bf16;
  fail(ErrorKind::bad_input, "dtype \"", name, "\" is not supported; supported: float32, float16, bfloat16");
}

// Llama 3.1's long context: wavelengths beyond the original context are stretched by `factor`, short ones stay, those between are
// blended. Source: the model's own configuration fields; formula as in transformers' modeling_rope_utils.
void scale_llama3(RopeTable& table, const Json& scaling) {
  const double factor = positive(scaling, "factor", 0), low = positive(scaling, "low_freq_factor", 0);
  const double high = positive(scaling, "high_freq_factor", 0);
  const double context = positive(scaling, "original_max_position_embeddings", 0);
  check(high > low, ErrorKind::bad_input, "high_freq_factor ", high, " must exceed low_freq_factor ", low);
  for (double& f : table.inv_freq) {
    const double wavelength = 2 * std::numbers::pi / f;
    if (wavelength < context / high) continue;
    if (wavelength > context / low) {
      f /= factor;
      continue;
    }
    const double smooth = (context / wavelength - low) / (high - low);
    f = (1 - smooth) * f / factor + smooth * f;
  }
}

}  // namespace

RopeTable read_rope(const Json& json, i64 rotary_dim) {
  // Newer files hold everything in rope_parameters; older ones rope_theta beside rope_scaling.
  static const Json kNone = Json::object({});
  const auto object_or_none = [&](const char* key) -> const Json& {
    const Json* found = json.find(key);
    return found && !found->is_null() ? *found : kNone;
  };
  const Json& parameters = object_or_none("rope_parameters");
  const Json& scaling =
      parameters.find("rope_type") || parameters.find("rope_theta") ? parameters : object_or_none("rope_scaling");
  const double theta =
      parameters.find("rope_theta") ? positive(parameters, "rope_theta", 0) : positive(json, "rope_theta", 10000);

  RopeTable table;
  for (i64 i = 0; i < rotary_dim / 2; ++i)
    table.inv_freq.push_back(std::pow(theta, -2 * static_cast<double>(i) / static_cast<double>(rotary_dim)));
  const std::string kind = scaling.string("rope_type", scaling.string("type", "default"));
  if (kind == "linear") {
    const double factor = positive(scaling, "factor", 0);
    for (double& f : table.inv_freq) f /= factor;
  } else if (kind == "llama3") {
    scale_llama3(table, scaling);
  } else {
    check(kind == "default", ErrorKind::bad_input, "rope scaling \"", kind,
          "\" is not supported; supported: default, linear, llama3");
  }
  return table;
}

Config read_config(const Json& json) {
  Config c;
  const Json::Array& architectures = json.array("architectures");
  check(architectures.size() == 1, ErrorKind::bad_input, "architectures must name one class, but names ", architectures.size());
  c.architecture = architectures[0].string();
  c.hidden = in_range(json, "hidden_size", 1, 1 << 20);
  c.ffn = in_range(json, "intermediate_size", 1, 1 << 22);
  c.layers = in_range(json, "num_hidden_layers", 1, 4096);
  c.heads = in_range(json, "num_attention_heads", 1, 1 << 14);
  c.kv_heads = in_range(json, "num_key_value_heads", 1, c.heads, c.heads);
  check(c.heads % c.kv_heads == 0, ErrorKind::bad_input, "num_attention_heads ", c.heads,
        " is no multiple of num_key_value_heads ", c.kv_heads);
  const Json* head_dim = json.find("head_dim");
  check((head_dim && !head_dim->is_null()) || c.hidden % c.heads == 0, ErrorKind::bad_input, "hidden_size ", c.hidden,
        " is no multiple of num_attention_heads ", c.heads, " and there is no head_dim");
  c.head_dim = in_range(json, "head_dim", 2, 1024, c.hidden / c.heads);
  check(c.head_dim % 2 == 0, ErrorKind::bad_input, "head_dim ", c.head_dim, " is odd: rotary positions need pairs");
  c.vocab = in_range(json, "vocab_size", 1, 1 << 24);
  c.max_positions = in_range(json, "max_position_embeddings", 1, i64{1} << 32, 2048);
  c.norm_eps = static_cast<float>(positive(json, "rms_norm_eps", 1e-6));
  c.activation = read_activation(json.string("hidden_act", "silu"));
  c.tied_head = json.boolean("tie_word_embeddings", false);
  c.attention_bias = json.boolean("attention_bias", false);
  c.mlp_bias = json.boolean("mlp_bias", false);
  c.dtype = read_dtype(json.string("dtype", json.string("torch_dtype", "float32")));
  c.rope = read_rope(json, c.head_dim);
  return c;
}

i64 Config::parameters() const { return layers * (hidden * head_dim * (2 * heads + 2 * kv_heads) + 3 * hidden * ffn); }

}  // namespace signround
