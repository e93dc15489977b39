#include "export/fake.h"

namespace signround {
namespace {

class Fake final : public Exporter {
 public:
  void require(const std::string&, i64, i64, const QuantSpec&) const override {}  // holds every grid

  std::vector<TensorInfo> layout(const std::string& name, i64 rows, i64 cols, const QuantSpec&,
                                 DType weight_type) const override {
    return {tensor_info(name + ".weight", weight_type, {rows, cols})};
  }

  std::vector<EncodedTensor> encode(const QuantizedLinear& layer) const override {
    std::vector<TensorInfo> info = layout(layer.name, layer.rows, layer.cols, layer.spec, layer.weight_type);
    std::vector<u8> bytes(info[0].bytes);
    dequantize(view(bytes.data(), layer.weight_type, layer.rows, layer.cols), layer);
    return {{std::move(info[0]), std::move(bytes)}};
  }

  void configure(Json&) const override {}
};

}  // namespace

std::unique_ptr<Exporter> make_fake_exporter(const ExportScheme&) { return std::make_unique<Fake>(); }

}  // namespace signround
