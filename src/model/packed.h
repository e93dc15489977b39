// Linear layers that a checkpoint keeps as packed integers instead of P.weight, in the GPTQ family of formats:
//   P.qweight  I32 [in*b/32, out]          codes, packed along the input (io/bit_packing.h)
//   P.qzeros   I32 [ceil(in/g), out*b/32]  zero points, packed along the output; the first version of the format stores them less
//   one P.scales   F16 [ceil(in/g), out]
// config.json tells bits b, group size g and the version.
#pragma once
#include <map>
#include <optional>
#include <string>
#include <utility>

#include "io/checkpoint.h"
#include "model/quantized.h"

namespace signround {

class PackedWeights {
 public:
  // From the quantization_config of config.json, empty if there is none. Reads quant_method "auto-round" with packing_format
  // auto_round:auto_gptq (the default) or auto_round, and "gptq" of both versions. Throws Error{bad_input} naming what else it
  // found.
  static std::optional<PackedWeights> described_by(const Json& config);

  // Whether the layer P, "model.layers.0.mlp.up_proj", is packed.
  bool holds(const Checkpoint& checkpoint, const std::string& layer) const {
    return checkpoint.find(layer + ".qweight") != nullptr;
  }
  const QuantSpec& spec(const std::string& layer) const;

  // Rows and columns of a packed layer's weight. Throws Error{bad_input} if its tensors fit neither each other nor the
  // configuration.
  std::pair<i64, i64> shape(const Checkpoint& checkpoint, const std::string& layer) const;
  // The layer as the exporter had it; the checkpoint does not tell weight_type. A zero point may be 2^bits: the first version of
  // the format can say so. Throws Error{bad_input} as shape() does, and for a scale that is not finite or a zero point that
  // cannot be.
  QuantizedLinear read(const Checkpoint& checkpoint, const std::string& layer, DType weight_type) const;

 private:
  QuantSpec spec_;
  std::map<std::string, QuantSpec> exceptions_;  // by layer
  int zero_offset_ = 0;                          // the zero point is the stored number plus this
};

}  // namespace signround
