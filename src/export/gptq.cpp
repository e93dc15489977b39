#include "export/gptq.h"

#include <algorithm>
#include <cstring>
#include <map>

#include "export/packed_int32.h"

namespace signround {
namespace {

// The pattern, a regular expression, that this name alone matches.
std::string pattern_of(const std::string& name) {
  std::string pattern = "^";
  for (const char c : name) pattern += c == '.' ? std::string("\\.") : std::string(1, c);
  return pattern + "$";
}

// The three tensors of export/packed_int32.h and, for readers that insist on it, P.g_idx I32 [in]: the group of each input.
class Gptq final : public Exporter {
 public:
  Gptq(const ExportScheme& scheme, int version) : scheme_(scheme), version_(version) {}

  void require(const std::string& name, i64 rows, i64 cols, const QuantSpec& spec) const override {
    check(version_ == 2 || spec.symmetric, ErrorKind::usage, name,
          ": format gptq stores zero points less one, so that 0 has no place; the nearest is --format gptq_v2");
    require_packed_int32(name, rows, cols, spec);
  }

  std::vector<TensorInfo> layout(const std::string& name, i64 rows, i64 cols, const QuantSpec& spec, DType) const override {
    std::vector<TensorInfo> tensors = layout_packed_int32(name, rows, cols, spec);
    tensors.push_back(tensor_info(name + ".g_idx", DType::i32, {cols}));
    return tensors;
  }

  std::vector<EncodedTensor> encode(const QuantizedLinear& layer) const override {
    std::vector<EncodedTensor> out = encode_packed_int32(layer, version_ == 1 ? 1 : 0);
    std::vector<i32> index;
    for (i64 c = 0; c < layer.cols; ++c) index.push_back(static_cast<i32>(c / layer.spec.group_of(layer.cols)));
    EncodedTensor g_idx = empty_tensors({tensor_info(layer.name + ".g_idx", DType::i32, {layer.cols})})[0];
    std::memcpy(g_idx.bytes.data(), index.data(), g_idx.bytes.size());
    out.push_back(std::move(g_idx));
    return out;
  }

  void configure(Json& config) const override {
    Json q = Json::object({{"quant_method", "gptq"},
                           {"checkpoint_format", version_ == 1 ? "gptq" : "gptq_v2"},
                           {"bits", scheme_.spec.bits},
                           {"group_size", group_size(scheme_.spec)},
                           {"sym", scheme_.spec.symmetric},
                           {"desc_act", false},
                           {"true_sequential", false},
                           {"damp_percent", 0.01},
                           {"lm_head", false}});
    if (Json own = dynamic(); !own.object().empty()) q.set("dynamic", std::move(own));
    use_float16(config);
    config.set("quantization_config", std::move(q));
  }
  std::string config_file() const override { return "quantize_config.json"; }

 private:
  // Layers with a grid of their own ("+:") and those left alone ("-:"), by patterns. gptqmodel looks for each layer by its name,
  // vLLM and SGLang for what they join q, k and v, gate and up, or all experts to: that name too, if its parts are alike.
  Json dynamic() const {
    std::vector<std::pair<std::string, Json>> own;  // null: left alone
    for (const std::string& name : scheme_.skipped) own.emplace_back(name, Json());
    for (const auto& [name, spec] : scheme_.exceptions)
      own.emplace_back(name, Json::object({{"bits", spec.bits}, {"group_size", group_size(spec)}, {"sym", spec.symmetric}}));
    Json dynamic = Json::object({});
    const auto add = [&](const std::string& name, const Json& keys) {
      dynamic.set((keys.is_null() ? "-:" : "+:") + pattern_of(name), keys.is_null() ? Json::object({}) : keys);
    };
    std::map<std::string, std::vector<Json>> fused;
    for (const auto& [name, keys] : own) {
      add(name, keys);
      if (const std::string joined = fused_name(name); !joined.empty()) fused[joined].push_back(keys);
    }
    for (const auto& [name, parts] : fused) {
      const std::size_t all = name.ends_with("qkv_proj") ? 3 : name.ends_with(".experts") ? parts.size() : 2;
      const bool alike = std::all_of(parts.begin(), parts.end(), [&, &p = parts](const Json& keys) { return keys == p[0]; });
      if (alike && parts.size() == all) add(name, parts[0]);
    }
    return dynamic;
  }

  const ExportScheme scheme_;
  const int version_;
};

}  // namespace

std::unique_ptr<Exporter> make_gptq_exporter(const ExportScheme& scheme) { return std::make_unique<Gptq>(scheme, 1); }
std::unique_ptr<Exporter> make_gptq_v2_exporter(const ExportScheme& scheme) { return std::make_unique<Gptq>(scheme, 2); }

}  // namespace signround
