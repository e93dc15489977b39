#include "export/fake.h"

#include "io/transpose.h"

namespace signround {
namespace {

class Fake final : public Exporter {
 public:
  explicit Fake(bool transposed) : transposed_(transposed) {}

  void require(const std::string&, i64, i64, const QuantSpec&) const override {}  // holds every grid

  std::vector<TensorInfo> layout(const std::string& name, i64 rows, i64 cols, const QuantSpec&,
                                 DType weight_type) const override {
    return {tensor_info(name + ".weight", weight_type, transposed_ ? std::vector{cols, rows} : std::vector{rows, cols})};
  }

  std::vector<EncodedTensor> encode(const QuantizedLinear& layer) const override {
    std::vector<TensorInfo> info = layout(layer.name, layer.rows, layer.cols, layer.spec, layer.weight_type);
    EncodedTensor out{std::move(info[0]), std::vector<u8>(info[0].bytes)};
    dequantize(view(out.bytes.data(), layer.weight_type, layer.rows, layer.cols), layer);
    if (transposed_) {
      const std::vector<std::byte> turned = transpose(std::as_bytes(std::span(out.bytes)), layer.rows, layer.cols);
      std::memcpy(out.bytes.data(), turned.data(), turned.size());
    }
    return {std::move(out)};
  }

  void configure(Json&) const override {}
  bool keeps_places() const override { return true; }

 private:
  bool transposed_;  // as the original has its linears
};

}  // namespace

std::unique_ptr<Exporter> make_fake_exporter(const ExportScheme& scheme) {
  return std::make_unique<Fake>(scheme.transposed);
}

}  // namespace signround
