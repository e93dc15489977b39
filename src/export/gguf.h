// Formats "gguf:q4_0", "gguf:q4_1", "gguf:q8_0", "gguf:q2_0": grids that llama.cpp's blocks hold as they are.
//   q4_0  4 bits, symmetric   32 values: F16 d, 16 bytes, value j in the low half of byte j, j+16 in the high one; w = d (q - 8)
//   q4_1  4 bits, asymmetric  32 values: F16 d, F16 m, the same 16 bytes; w = d q + m, with m = -zero * scale rounded to F16 once
//   q8_0  8 bits, symmetric   32 values: F16 d, 32 signed bytes; w = d q
//   q2_0  2 bits, symmetric   64 values: F16 d, 16 bytes, value j at bits 2 (j % 4) of byte j/4; w = d (q - 1). Ours is
//                             scale (c - 2), so q = 3 - c and d = -scale
// A group's scale is repeated in each of its blocks. A file may mix them: a layer with a grid of its own has the type that holds
// that.
#pragma once
#include "export/export.h"
#include "io/gguf.h"

namespace signround {

std::unique_ptr<Exporter> make_gguf_exporter(GgmlType type, const ExportScheme& scheme);

bool is_gguf(const std::string& format);
GgmlType gguf_type(const std::string& format);  // of "gguf:q4_0"; Error{usage} if there is none
// Of a layer in a file of `type`: that, or what holds the layer's own grid. Error{usage} if nothing does.
GgmlType gguf_type(GgmlType type, const ExportScheme& scheme, const std::string& layer);

// The layer from its blocks [rows, bytes of a row]. Throws Error{bad_input} if blocks of one group have different scales.
QuantizedLinear decode_gguf(GgmlType type, std::span<const std::byte> bytes, const std::string& name, i64 rows, i64 cols,
                            const QuantSpec& spec, DType weight_type);

}  // namespace signround
