#include "export/awq.h"

#include "export/packed_awq.h"

namespace signround {
namespace {

class Awq final : public Exporter {
 public:
  explicit Awq(const ExportScheme& scheme) : scheme_(scheme) {
    for (const auto& [name, spec] : scheme.exceptions)
      fail(ErrorKind::usage, "format awq has one grid for all layers, but ", name,
           " has another; the nearest is to leave it at 16 bits (\"bits\": 16), or --format auto_round");
  }

  void require(const std::string& name, i64 rows, i64 cols, const QuantSpec& spec) const override {
    require_awq(name, rows, cols, spec);
  }

  std::vector<TensorInfo> layout(const std::string& name, i64 rows, i64 cols, const QuantSpec& spec, DType) const override {
    return layout_awq(name, rows, cols, spec);
  }

  std::vector<EncodedTensor> encode(const QuantizedLinear& layer) const override { return encode_awq(layer); }

  void configure(Json& config) const override {
    Json plain = Json::array({"lm_head"});
    for (const std::string& name : scheme_.skipped) plain.push(name);
    use_float16(config);
    config.set("quantization_config", Json::object({{"quant_method", "awq"},
                                                    {"version", "gemm"},
                                                    {"bits", scheme_.spec.bits},
                                                    {"group_size", group_size(scheme_.spec)},
                                                    {"zero_point", true},
                                                    {"modules_to_not_convert", std::move(plain)}}));
  }
  std::string config_file() const override { return "quantize_config.json"; }

 private:
  const ExportScheme scheme_;
};

}  // namespace

std::unique_ptr<Exporter> make_awq_exporter(const ExportScheme& scheme) { return std::make_unique<Awq>(scheme); }

}  // namespace signround
