// The three tensors that AWQ keeps instead of P.weight [out, in], at 4 bits and groups of g inputs; eight outputs share a word:
//   P.qweight  I32 [in, out/8]    codes
//   P.qzeros   I32 [in/g, out/8]  zero points as they are
//   P.scales   F16 [in/g, out]
#pragma once
#include "export/export.h"

namespace signround {

bool awq_holds(const QuantSpec& spec);

// Throws Error{usage} unless the layer can be stored so: 4 bits, asymmetric, whole groups, outputs a multiple of 32.
void require_awq(const std::string& name, i64 rows, i64 cols, const QuantSpec& spec);
std::vector<TensorInfo> layout_awq(const std::string& name, i64 rows, i64 cols, const QuantSpec& spec);
std::vector<EncodedTensor> encode_awq(const QuantizedLinear& layer);

}  // namespace signround
