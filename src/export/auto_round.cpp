#include "export/auto_round.h"

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

// A group of -1 is the whole row.
i64 group_size(const QuantSpec& spec) { return spec.group > 0 ? spec.group : -1; }

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

// Symmetric grids as auto-round writes them, packing "auto_round:auto_gptq": zero points less one, no g_idx.
class AutoRound final : public Exporter {
 public:
  void require(const std::string& name, i64 rows, i64 cols, const QuantSpec& spec) const override {
    check(spec.symmetric, ErrorKind::usage, name,
          ": format auto_round holds symmetric grids only; leave --asym out, or keep the asymmetric grid with --format fake");
    require_packed_int32(name, rows, cols, spec);
  }

  std::vector<TensorInfo> layout(const std::string& name, i64 rows, i64 cols, const QuantSpec& spec, DType) const override {
    return layout_packed_int32(name, rows, cols, spec);
  }

  std::vector<EncodedTensor> encode(const QuantizedLinear& layer) const override { return encode_packed_int32(layer, 1); }

  std::string configure(Json& config, const ExportScheme& scheme) const override {
    Json q = Json::object({{"bits", scheme.spec.bits},
                           {"data_type", "int"},
                           {"group_size", group_size(scheme.spec)},
                           {"sym", scheme.spec.symmetric}});
    describe_tuning(q, scheme);
    q.set("block_name_to_quantize", scheme.block_prefix);
    q.set("quant_method", "auto-round");
    q.set("packing_format", "auto_round:auto_gptq");
    Json extra = describe_exceptions(scheme);
    if (!extra.object().empty()) q.set("extra_config", std::move(extra));
    std::string text = to_text(q, 2);
    config.set("quantization_config", std::move(q));
    return text;
  }
};

}  // namespace

std::unique_ptr<Exporter> make_auto_round_exporter() { return std::make_unique<AutoRound>(); }

}  // namespace signround
