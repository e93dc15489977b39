#include "model/config.h"

#include <cmath>

#include "model/family.h"
#include "model/rope.h"

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

const char* present(const Json& json, const char* key, const char* other) {
  const Json* found = json.find(key);
  return found && !found->is_null() ? key : other;
}

const Json& object_or_empty(const Json& json, const char* key) {
  static const Json kEmpty = Json::object({});
  const Json* found = json.find(key);
  return found && !found->is_null() ? *found : kEmpty;
}

i64 read_window(const Json& json, i64 fallback) {
  const Json* window = json.find("sliding_window");
  if (!window) return fallback;
  return window->is_null() ? 0 : in_range(json, "sliding_window", 1, i64{1} << 32);
}

void read_experts(Config& c, const Json& json, const char* ffn, const ExpertConfig& fallback) {
  c.experts = fallback;
  c.experts.count = in_range(json, present(json, "num_experts", "num_local_experts"), 1, 1 << 14, fallback.count);
  c.experts.active = in_range(json, "num_experts_per_tok", 1, c.experts.count, fallback.active);
  c.experts.ffn = in_range(json, ffn, 1, 1 << 22, fallback.ffn);
  c.layer.resize(static_cast<size_t>(c.layers));
  for (LayerConfig& layer : c.layer) layer.sparse = true;
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
  for (const char* tanh : {"gelu_pytorch_tanh", "gelu_new", "gelu_fast", "gelu_accurate", "gelu_python_tanh"})
    if (name == tanh) return Activation::gelu_tanh;
  if (name == "gelu" || name == "gelu_python") return Activation::gelu;
  if (name == "relu") return Activation::relu;
  fail(ErrorKind::bad_input, key, " \"", name, "\" is not supported; supported: silu, gelu, gelu_new, gelu_pytorch_tanh, relu");
}

DType read_dtype(const std::string& name) {
  if (name == "float32") return DType::f32;
  if (name == "float16") return DType::f16;
  if (name == "bfloat16") return DType::bf16;
  fail(ErrorKind::bad_input, "dtype \"", name, "\" is not supported; supported: float32, float16, bfloat16");
}

// Newer files hold everything in rope_parameters; older ones rope_theta and a share beside rope_scaling.
RopeTable read_global_rope(const Json& json, const ConfigKeys& keys, i64 head_dim) {
  const Json& older = object_or_empty(json, "rope_scaling");
  const Json& scaling = older.object().empty() ? object_or_empty(json, "rope_parameters") : older;
  const auto number = [&](const char* key, const char* beside, double fallback) {
    return positive(scaling, key, positive(json, beside, fallback));
  };
  const double theta = number("rope_theta", keys.rope_theta, keys.default_theta);
  const double share = keys.rotary_share ? number("partial_rotary_factor", keys.rotary_share, keys.default_share) : 1;
  check(share <= 1, ErrorKind::bad_input, keys.rotary_share, " is ", share, "; a head has no more to rotate than itself");
  const i64 rotary_dim = static_cast<i64>(static_cast<double>(head_dim) * share);
  check(rotary_dim % 2 == 0, ErrorKind::bad_input, "of a head's ", head_dim, " dimensions ", rotary_dim,
        " rotate: rotary positions need pairs");
  return read_rope(json, scaling, theta, rotary_dim, keys.original_positions);
}

}  // namespace

void read_decoder(Config& c, const Json& json, const ConfigKeys& keys) {
  const auto size = [&](const char* key, i64 most, i64 absent) { return in_range(json, key, 1, most, absent ? absent : -1); };
  c.hidden = size(keys.hidden, 1 << 20, keys.sizes.hidden);
  c.ffn = keys.ffn ? size(keys.ffn, 1 << 22, keys.sizes.ffn ? keys.sizes.ffn : 4 * c.hidden) : 4 * c.hidden;
  c.layers = size(keys.layers, 4096, keys.sizes.layers);
  c.heads = size(keys.heads, 1 << 14, keys.sizes.heads);
  // Null means: as the other sizes have it, and so does an absent key of families that say nothing else.
  const auto or_derived = [&](const char* key, i64 low, i64 most, i64 absent, i64 derived) {
    return in_range(json, key, low, most, json.find(key) || absent == 0 ? derived : absent);
  };
  c.kv_heads = keys.kv_heads ? or_derived(keys.kv_heads, 1, c.heads, keys.sizes.kv_heads, c.heads) : c.heads;
  check(c.heads % c.kv_heads == 0, ErrorKind::bad_input, keys.heads, " ", c.heads, " is no multiple of the ", c.kv_heads,
        " KV heads");
  c.head_dim = or_derived("head_dim", 2, 1024, keys.sizes.head_dim, c.hidden / c.heads);
  check(present(json, "head_dim", nullptr) || keys.sizes.head_dim > 0 || c.hidden % c.heads == 0, ErrorKind::bad_input,
        keys.hidden, " ", c.hidden, " is no multiple of ", keys.heads, " ", c.heads, " and there is no head_dim");
  c.vocab = size("vocab_size", 1 << 24, keys.sizes.vocab);
  c.max_positions = in_range(json, keys.positions, 1, i64{1} << 32, keys.sizes.positions);
  c.norm_eps = static_cast<float>(positive(json, keys.norm_eps, keys.default_eps));
  c.activation = read_activation(keys.activation, json.string(keys.activation, keys.default_activation));
  c.tied_head = json.boolean("tie_word_embeddings", keys.tied_head);
  if (keys.rotates) c.rope = read_global_rope(json, keys, c.head_dim);
}

void check_length(const Config& c, i64 tokens) {
  check(!c.learned_positions || tokens <= c.max_positions, ErrorKind::usage, "the model has learned ", c.max_positions,
        " positions, too few for --seqlen ", tokens, ": lower it");
}

namespace {

// A file may name no class, or that of the model without its head: "LlamaModel". Then its type tells.
std::string read_architecture(const Json& json) {
  const std::string by_type = class_of(json.string("model_type", ""));
  const Json* listed = json.find("architectures");
  if (!by_type.empty() && (!listed || listed->is_null() || listed->array().empty())) return by_type;
  const Json::Array& architectures = json.array("architectures");
  check(architectures.size() == 1, ErrorKind::bad_input, "architectures must name one class, but names ", architectures.size());
  const std::string& name = architectures[0].string();
  return name.ends_with("Model") && !by_type.empty() ? by_type : name;
}

}  // namespace

Config read_config(const Json& json) {
  Config c;
  c.architecture = read_architecture(json);
  c.dtype = read_dtype(json.string("dtype", json.string("torch_dtype", "float32")));
  family_of(c).read(c, json);
  return c;
}

}  // namespace signround
