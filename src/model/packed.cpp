#include "model/packed.h"

#include <algorithm>
#include <string_view>

namespace signround {
namespace {

QuantSpec read_spec(const Json& json, const QuantSpec& fallback) {
  const i64 bits = json.integer("bits", fallback.bits), group = json.integer("group_size", fallback.group);
  const QuantSpec spec{static_cast<int>(bits), group, json.boolean("sym", fallback.symmetric)};
  if (bits == 16) return spec;
  check(bits >= 2 && bits <= 8, ErrorKind::bad_input, "bits ", bits,
        " is not supported; supported: 2 to 8, and 16 for layers left alone");
  check(group == -1 || group > 0, ErrorKind::bad_input, "group_size ", group,
        " is not supported; supported: -1 and positive numbers");
  const std::string type = json.string("data_type", "int");
  check(type == "int", ErrorKind::bad_input, "data_type ", quote(type), " is not supported; supported: int");
  check(json.integer("act_bits", 16) >= 16, ErrorKind::bad_input, "quantized activations (act_bits) are not supported");
  return spec;
}

// The name that a pattern of GPTQ stands for, as our exporter writes them: "^model\\.layers\\.0$" -> "model.layers.0". Empty if
// the pattern is anything else.
std::string literal_of(std::string_view pattern) {
  if (!pattern.starts_with('^') || !pattern.ends_with('$')) return "";
  std::string name;
  for (std::size_t i = 1; i + 1 < pattern.size(); ++i) {
    if (pattern.substr(i, 2) == "\\.") ++i;
    else if (std::string_view(".*+?()[]{}|\\^$").find(pattern[i]) != std::string_view::npos) return "";
    name += pattern[i];
  }
  return name;
}

void require_one_of(const char* key, const std::string& value, std::initializer_list<std::string_view> supported) {
  std::string list;
  for (const std::string_view s : supported) list += cat(list.empty() ? "" : ", ", s);
  check(std::find(supported.begin(), supported.end(), value) != supported.end(), ErrorKind::bad_input, key, " ", quote(value),
        " is not supported; supported: ", list);
}

}  // namespace

std::optional<PackedWeights> PackedWeights::described_by(const Json& config) {
  const Json* json = config.find("quantization_config");
  if (!json || json->is_null()) return std::nullopt;
  return within("config.json: quantization_config", [&] {
    PackedWeights packed;
    const std::string& method = json->string("quant_method");
    require_one_of("quant_method", method,
                   {"auto-round", "auto_round", "intel/auto-round", "gptq", "awq", "compressed-tensors"});
    method == "compressed-tensors" ? packed.read_compressed_config(*json) : packed.read_config(*json);
    return std::optional(std::move(packed));
  });
}

void PackedWeights::read_config(const Json& json) {
  json.integer("bits");  // the one key without a default
  spec_ = read_spec(json, {});
  const std::string& method = json.string("quant_method");
  if (method == "gptq") {
    const std::string version = json.string("checkpoint_format", "gptq");
    require_one_of("checkpoint_format", version, {"gptq", "gptq_v2"});
    zero_offset_ = version == "gptq" ? 1 : 0;
  } else if (method == "awq") {
    require_one_of("version", json.string("version", "gemm"), {"gemm"});
    layout_ = Layout::awq;
    spec_.symmetric = !json.boolean("zero_point", true);
  } else {
    const std::string packing = json.string("packing_format", "auto_round:auto_gptq");
    require_one_of("packing_format", packing, {"auto_round:auto_gptq", "auto_round:auto_awq", "auto_round"});
    layout_ = packing == "auto_round:auto_awq" ? Layout::awq : Layout::gptq;
    zero_offset_ = packing == "auto_round:auto_gptq" ? 1 : 0;
  }
  // Keys are names of layers, and patterns that auto-round writes beside the names of all layers they match.
  if (const Json* extra = json.find("extra_config"); extra && !extra->is_null())
    for (const JsonMember& member : extra->object())
      exceptions_[member.key] = within(cat("extra_config: ", quote(member.key)), [&] { return read_spec(member.value, spec_); });
  // GPTQ has patterns: "-:" for layers that are not packed, which shows in the tensors, "+:" for another grid.
  if (const Json* dynamic = json.find("dynamic"); dynamic && !dynamic->is_null())
    for (const JsonMember& member : dynamic->object()) {
      if (member.key.starts_with("-:")) continue;
      const std::string name = member.key.starts_with("+:") ? literal_of(std::string_view(member.key).substr(2)) : "";
      check(!name.empty(), ErrorKind::bad_input, "dynamic: ", quote(member.key),
            ": other bits or groups by a pattern are not supported; supported: +:^one\\.name$");
      exceptions_[name] = within(cat("dynamic: ", quote(member.key)), [&] { return read_spec(member.value, spec_); });
    }
  if (layout_ == Layout::awq)
    check(spec_.bits == 4, ErrorKind::bad_input, "bits ", spec_.bits, " is not supported by AWQ; supported: 4");
}

void PackedWeights::read_compressed_config(const Json& json) {
  require_one_of("format", json.string("format"), {"pack-quantized"});
  layout_ = Layout::compressed;
  spec_.bits = 16;  // what no group names
  for (const JsonMember& group : json.object("config_groups"))
    within(cat("config_groups: ", quote(group.key)), [&] {
      const Json* activations = group.value.find("input_activations");
      check(!activations || activations->is_null(), ErrorKind::bad_input, "quantized input_activations are not supported");
      const Json& weights = group.value.at("weights");
      require_one_of("type", weights.string("type", "int"), {"int"});
      const std::string strategy = weights.string("strategy", "group");
      require_one_of("strategy", strategy, {"group", "channel"});
      const QuantSpec spec = read_spec(Json::object({{"bits", weights.integer("num_bits")},
                                                     {"group_size", strategy == "channel" ? -1 : weights.integer("group_size")},
                                                     {"sym", weights.boolean("symmetric", true)}}),
                                       {});
      for (const Json& target : group.value.array("targets")) {
        const std::string& name = target.string();
        check(!name.starts_with("re:"), ErrorKind::bad_input, "target ", quote(name), ": patterns are not supported");
        if (name == "Linear") spec_ = spec;
        else exceptions_[name] = spec;
      }
    });
}

const QuantSpec& PackedWeights::spec(const std::string& layer) const {
  const auto found = exceptions_.find(layer);
  return found == exceptions_.end() ? spec_ : found->second;
}

}  // namespace signround
