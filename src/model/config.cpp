#include "model/config.h"

#include <cmath>
#include <numbers>

#include "model/family.h"

namespace signround {

i64 in_range(const Json& json, const char* key, i64 low, i64 high, i64 fallback) {
  const i64 value = fallback < 0 ? json.integer(key) : json.integer(key, fallback);
  check(value >= low && value <= high, ErrorKind::bad_input, key, " is ", value, "; it must lie in ", low, "..", high);
  return value;
}

double positive(const Json& json, const char* key, double fallback) {
  const double value = json.number(key, fallback);
  check(value > 0 && std::isfinite(value), ErrorKind::bad_input, key, " is ", value, "; it must be positive");
  return value;
}

double positive_or_none(const Json& json, const char* key, double fallback) {
  const Json* found = json.find(key);
  return found ? (found->is_null() ? 0 : positive(json, key, 0)) : fallback;
}

void refuse(const Json& json, const char* key) {
  check(!json.boolean(key, false), ErrorKind::bad_input, key, " is true, which is not supported");
}

const char* present(const Json& json, const char* key, const char* old_key) { return json.find(key) ? key : old_key; }

const Json& object_or_empty(const Json& json, const char* key) {
  static const Json kEmpty = Json::object({});
  const Json* found = json.find(key);
  return found && !found->is_null() ? *found : kEmpty;
}

void read_window_everywhere(Config& c, const Json& json, i64 fallback) {
  const Json* window = json.find("sliding_window");
  if (window) fallback = window->is_null() ? 0 : in_range(json, "sliding_window", 1, i64{1} << 32);
  c.layer.assign(static_cast<size_t>(c.layers), {.window = fallback});
}

std::vector<bool> read_sliding(const Json& json, i64 layers) {
  const Json* types = json.find("layer_types");
  std::vector<bool> sliding;
  if (!types || types->is_null()) return sliding;
  for (const Json& type : types->array()) {
    check(type.string() == "sliding_attention" || type.string() == "full_attention", ErrorKind::bad_input, "layer_types has ",
          quote(type.string()), ", which is not supported; supported: full_attention, sliding_attention");
    sliding.push_back(type.string() == "sliding_attention");
  }
  check(static_cast<i64>(sliding.size()) == layers, ErrorKind::bad_input, "layer_types names ", sliding.size(), " layers of ",
        layers);
  return sliding;
}

namespace {

Activation read_activation(const char* key, const std::string& name) {
  if (name == "silu" || name == "swish") return Activation::silu;
  if (name == "gelu_pytorch_tanh" || name == "gelu_new" || name == "gelu_fast") return Activation::gelu_tanh;
  if (name == "gelu") return Activation::gelu;
  if (name == "relu") return Activation::relu;
  fail(ErrorKind::bad_input, key, " \"", name, "\" is not supported; supported: silu, gelu, gelu_new, gelu_pytorch_tanh, relu");
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

std::vector<double> read_factors(const Json& scaling, const char* key, size_t count) {
  std::vector<double> factors;
  for (const Json& factor : scaling.array(key)) factors.push_back(factor.number());
  check(factors.size() == count, ErrorKind::bad_input, key, " has ", factors.size(), " factors for ", count, " rotary pairs");
  for (double f : factors) check(f > 0, ErrorKind::bad_input, key, " holds ", f, "; factors must be positive");
  return factors;
}

// Phi-3's long context: a factor for each pair, one list for sequences within the original context, one for longer ones. Source
// and formula as for llama3.
void scale_longrope(RopeTable& table, const Json& json, const Json& scaling) {
  const i64 positions = in_range(json, "max_position_embeddings", 1, i64{1} << 32);
  const Json& holder = scaling.find("original_max_position_embeddings") ? scaling : json;
  table.long_from = in_range(holder, "original_max_position_embeddings", 2, i64{1} << 32, positions);
  const size_t pairs = table.inv_freq.size();
  const std::vector<double> near = read_factors(scaling, "short_factor", pairs),
                            far = read_factors(scaling, "long_factor", pairs);
  table.long_inv_freq = table.inv_freq;
  for (size_t i = 0; i < pairs; ++i) table.inv_freq[i] /= near[i], table.long_inv_freq[i] /= far[i];
  const double context = static_cast<double>(table.long_from);
  const double factor = positive(scaling, "factor", static_cast<double>(positions) / context);
  const double scale = factor <= 1 ? 1 : std::sqrt(1 + std::log(factor) / std::log(context));
  table.scale = positive(scaling, "attention_factor", scale);
}

}  // namespace

RopeTable read_rope(const Json& json, const Json& scaling, double theta, i64 rotary_dim) {
  RopeTable table;
  for (i64 i = 0; i < rotary_dim / 2; ++i)
    table.inv_freq.push_back(std::pow(theta, -2 * static_cast<double>(i) / static_cast<double>(rotary_dim)));
  const std::string kind = scaling.string("rope_type", scaling.string("type", "default"));
  if (kind == "linear") {
    const double factor = positive(scaling, "factor", 0);
    for (double& f : table.inv_freq) f /= factor;
  } else if (kind == "llama3") {
    scale_llama3(table, scaling);
  } else if (kind == "longrope" || kind == "su") {
    scale_longrope(table, json, scaling);
  } else {
    check(kind == "default", ErrorKind::bad_input, "rope scaling \"", kind,
          "\" is not supported; supported: default, linear, llama3, longrope");
  }
  return table;
}

namespace {

// Newer files hold everything in rope_parameters; older ones rope_theta and a share beside rope_scaling.
RopeTable read_global_rope(const Json& json, const ConfigKeys& keys, i64 head_dim) {
  const Json& parameters = object_or_empty(json, "rope_parameters");
  const auto number = [&](const char* key, const char* old_key, double fallback) {
    return parameters.find(key) ? positive(parameters, key, fallback) : positive(json, old_key, fallback);
  };
  const double theta = number("rope_theta", keys.rope_theta, keys.default_theta);
  const double share = keys.rotary_share ? number("partial_rotary_factor", keys.rotary_share, keys.default_share) : 1;
  check(share <= 1, ErrorKind::bad_input, keys.rotary_share, " is ", share, "; a head has no more to rotate than itself");
  const i64 rotary_dim = static_cast<i64>(static_cast<double>(head_dim) * share);
  check(rotary_dim % 2 == 0, ErrorKind::bad_input, "of a head's ", head_dim, " dimensions ", rotary_dim,
        " rotate: rotary positions need pairs");
  const bool newer = parameters.find("rope_type") || parameters.find("rope_theta");
  return read_rope(json, newer ? parameters : object_or_empty(json, "rope_scaling"), theta, rotary_dim);
}

}  // namespace

void read_decoder(Config& c, const Json& json, const ConfigKeys& keys) {
  c.hidden = in_range(json, keys.hidden, 1, 1 << 20);
  c.ffn = keys.ffn ? in_range(json, keys.ffn, 1, 1 << 22, 4 * c.hidden) : 4 * c.hidden;
  c.layers = in_range(json, keys.layers, 1, 4096);
  c.heads = in_range(json, keys.heads, 1, 1 << 14);
  c.kv_heads = keys.kv_heads ? in_range(json, keys.kv_heads, 1, c.heads, c.heads) : c.heads;
  check(c.heads % c.kv_heads == 0, ErrorKind::bad_input, keys.heads, " ", c.heads, " is no multiple of the ", c.kv_heads,
        " KV heads");
  const Json* head_dim = json.find("head_dim");
  check((head_dim && !head_dim->is_null()) || c.hidden % c.heads == 0, ErrorKind::bad_input, keys.hidden, " ", c.hidden,
        " is no multiple of ", keys.heads, " ", c.heads, " and there is no head_dim");
  c.head_dim = in_range(json, "head_dim", 2, 1024, c.hidden / c.heads);
  c.vocab = in_range(json, "vocab_size", 1, 1 << 24);
  c.max_positions = in_range(json, keys.positions, 1, i64{1} << 32, 2048);
  c.norm_eps = static_cast<float>(positive(json, keys.norm_eps, keys.default_eps));
  c.activation = read_activation(keys.activation, json.string(keys.activation, keys.default_activation));
  c.tied_head = json.boolean("tie_word_embeddings", keys.tied_head);
  c.rope = read_global_rope(json, keys, c.head_dim);
}

Config read_config(const Json& json) {
  Config c;
  const Json::Array& architectures = json.array("architectures");
  check(architectures.size() == 1, ErrorKind::bad_input, "architectures must name one class, but names ", architectures.size());
  c.architecture = architectures[0].string();
  c.dtype = read_dtype(json.string("dtype", json.string("torch_dtype", "float32")));
  family_of(c).read(c, json);
  return c;
}

}  // namespace signround
