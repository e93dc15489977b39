// The three tensors that the GPTQ family of formats keeps instead of P.weight [out, in], with b bits and groups of g inputs:
//   P.qweight  I32 [in*b/32, out]        codes, packed along the input
//   P.qzeros   I32 [ceil(in/g), out*b/32]  zero points, packed along the output
//   P.scales   F16 [ceil(in/g), out]
#pragma once
#include <string>
#include <vector>

#include "export/export.h"

namespace signround {

// Throw Error{usage} unless both dimensions are multiples of 32, and unless every group of a row is whole.
void require_whole_blocks(const std::string& name, i64 rows, i64 cols);
void require_whole_groups(const std::string& name, i64 cols, const QuantSpec& spec);

// Throws Error{usage} unless the layer can be stored so: 2, 3, 4 or 8 bits, both dimensions multiples of 32.
void require_packed_int32(const std::string& name, i64 rows, i64 cols, const QuantSpec& spec);

std::vector<TensorInfo> layout_packed_int32(const std::string& name, i64 rows, i64 cols, const QuantSpec& spec);

// Stores zero - zero_offset: 1 in the first version of GPTQ's format, 0 in the second. A zero point below it is Error{bug}.
std::vector<EncodedTensor> encode_packed_int32(const QuantizedLinear& layer, int zero_offset);

// [groups, rows] from the layer's [rows, groups].
void put_scales_transposed(EncodedTensor& to, const QuantizedLinear& layer);

}  // namespace signround
