// Linear layers [out, in] that a checkpoint keeps as packed integers instead of P.weight, with b bits and groups of g inputs. The
// bit streams are those of io/bit_packing.h.
//   GPTQ: P.qweight  I32 [in*b/32, out]        codes, packed along the input
//         P.qzeros   I32 [ceil(in/g), out*b/32]  zero points, packed along the output; its first version stores them less one
//         P.scales   F16 [ceil(in/g), out]
//   AWQ:  P.qweight  I32 [in, out/8]           codes of 4 bits, packed along the output, eight interleaved
//         P.qzeros   I32 [in/g, out/8]         the same of the zero points;  P.scales as above
//   compressed-tensors: P.weight_packed I32 [out, in*b/32], P.weight_scale F16 [out, in/g], P.weight_shape I64 [2], and for
//         asymmetric grids P.weight_zero_point I32 [out*b/32, in/g], packed along the output
// config.json tells bits b, group size g and which of them it is.
#pragma once
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "io/checkpoint.h"
#include "model/quantized.h"

namespace signround {

class PackedWeights {
 public:
  // From the quantization_config of config.json, empty if there is none. Reads quant_method "auto-round" with packing_format
  // auto_round:auto_gptq (the default), auto_round:auto_awq or auto_round, "gptq" of both versions, "awq" of version gemm and
  // "compressed-tensors" of format pack-quantized. Throws Error{bad_input} naming what else it found.
  static std::optional<PackedWeights> described_by(const Json& config);

  // Whether the layer P, "model.layers.0.mlp.up_proj", is packed.
  bool holds(const Checkpoint& checkpoint, const std::string& layer) const {
    return checkpoint.find(layer + (layout_ == Layout::compressed ? ".weight_packed" : ".qweight")) != nullptr;
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
  enum class Layout { gptq, awq, compressed };

  void read_config(const Json& json);
  void read_compressed_config(const Json& json);
  std::vector<u8> unpacked(const Checkpoint& checkpoint, const std::string& tensor, i64 rows, i64 cols, const QuantSpec& spec,
                           bool along_rows) const;

  Layout layout_ = Layout::gptq;
  QuantSpec spec_;
  std::map<std::string, QuantSpec> exceptions_;  // by layer
  int zero_offset_ = 0;                          // the zero point is the stored number plus this
};

}  // namespace signround
