#include "export/auto_round.h"

#include "export/packed_awq.h"
#include "export/packed_int32.h"

namespace signround {
namespace {

// Settings of the tuning, where they differ from auto-round's defaults; without tuning only that there was none.
void describe_tuning(Json& q, const ExportScheme& scheme) {
  const auto unless_default = [&](const char* key, auto value, auto fallback) {
    if (value != fallback) q.set(key, value);
  };
  if (scheme.iters > 0) {
    unless_default("batch_size", scheme.batch_size, i64{8});
    unless_default("gradient_accumulate_steps", scheme.accumulate, i64{1});
  }
  unless_default("iters", scheme.iters, i64{200});
  if (scheme.iters > 0) {
    const double usual = 1.0 / static_cast<double>(scheme.iters), lr = scheme.lr.value_or(usual);
    unless_default("lr", lr, usual);
    unless_default("minmax_lr", scheme.minmax_lr.value_or(lr), usual);
    unless_default("nsamples", scheme.nsamples, i64{128});
    unless_default("seqlen", scheme.seqlen, i64{2048});
  }
}

// Layers that differ from the rest, by name, with the keys that differ.
Json describe_exceptions(const ExportScheme& scheme) {
  Json extra = Json::object({});
  for (const std::string& name : scheme.skipped) extra.set(name, Json::object({{"bits", 16}, {"data_type", "fp"}}));
  for (const auto& [name, spec] : scheme.exceptions) {
    Json keys = Json::object({});
    if (spec.bits != scheme.spec.bits) keys.set("bits", spec.bits);
    if (group_size(spec) != group_size(scheme.spec)) keys.set("group_size", group_size(spec));
    if (spec.symmetric != scheme.spec.symmetric) keys.set("sym", spec.symmetric);
    if (!keys.object().empty()) extra.set(name, std::move(keys));
  }
  return extra;
}

// How auto-round itself chooses: symmetric grids as GPTQ's first version, zero points less one; asymmetric ones of 4 bits as AWQ
// if the whole model is such; else zero points as they are. Never a g_idx.
enum class Packing { gptq, awq, plain };

Packing packing_of(const ExportScheme& scheme) {
  bool symmetric = scheme.spec.symmetric, awq = awq_holds(scheme.spec);
  for (const auto& [name, spec] : scheme.exceptions) {
    symmetric &= spec.symmetric;
    awq &= awq_holds(spec);
  }
  return symmetric ? Packing::gptq : awq ? Packing::awq : Packing::plain;
}

class AutoRound final : public Exporter {
 public:
  explicit AutoRound(const ExportScheme& scheme) : scheme_(scheme), packing_(packing_of(scheme)) {}

  void require(const std::string& name, i64 rows, i64 cols, const QuantSpec& spec) const override {
    packing_ == Packing::awq ? require_awq(name, rows, cols, spec) : require_packed_int32(name, rows, cols, spec);
  }

  std::vector<TensorInfo> layout(const std::string& name, i64 rows, i64 cols, const QuantSpec& spec, DType) const override {
    return packing_ == Packing::awq ? layout_awq(name, rows, cols, spec) : layout_packed_int32(name, rows, cols, spec);
  }

  std::vector<EncodedTensor> encode(const QuantizedLinear& layer) const override {
    return packing_ == Packing::awq ? encode_awq(layer) : encode_packed_int32(layer, packing_ == Packing::gptq ? 1 : 0);
  }

  void configure(Json& config) const override {
    Json q = Json::object({{"bits", scheme_.spec.bits},
                           {"data_type", "int"},
                           {"group_size", group_size(scheme_.spec)},
                           {"sym", scheme_.spec.symmetric}});
    describe_tuning(q, scheme_);
    q.set("block_name_to_quantize", scheme_.block_prefix);
    q.set("quant_method", "auto-round");
    constexpr const char* kNames[] = {"auto_round:auto_gptq", "auto_round:auto_awq", "auto_round"};
    q.set("packing_format", kNames[static_cast<int>(packing_)]);
    Json extra = describe_exceptions(scheme_);
    if (!extra.object().empty()) q.set("extra_config", std::move(extra));
    config.set("quantization_config", std::move(q));
  }

 private:
  const ExportScheme scheme_;
  const Packing packing_;
};

}  // namespace

std::unique_ptr<Exporter> make_auto_round_exporter(const ExportScheme& scheme) { return std::make_unique<AutoRound>(scheme); }

}  // namespace signround
