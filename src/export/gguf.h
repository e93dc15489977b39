// Formats "gguf:q4_0", "gguf:q4_1", "gguf:q8_0", "gguf:q2_0": grids that llama.cpp's blocks hold as they are.
//   q4_0  4 bits, symmetric   32 values: F16 d, 16 bytes, value j in the low half of byte j, j+16 in the high one; w = d (q - 8)
//   q4_1  4 bits, asymmetric  32 values: F16 d, F16 m, the same 16 bytes; w = d q + m, with m = -zero * scale rounded to F16 once
//   q8_0  8 bits, symmetric   32 values: F16 d, 32 signed bytes; w = d q
//   q2_0  2 bits, symmetric   64 values: F16 d, 16 bytes, value j at bits 2 (j % 4) of byte j/4; w = d (q - 1). Ours is
//                             scale (c - 2), so q = 3 - c and d = -scale
// A group's scale is repeated in each of its blocks. A file may mix them: a layer with a grid of its own has the type that holds
// that.
//
// "gguf:q2_k" .. "gguf:q6_k": grids of their own, whose scales have two levels (ops/qdq_super.h), tuned as such; a block is a
// super-block of 256.
//   q2_k  2 bits in groups of 16 with minima, 4-bit integers      q4_k, q5_k  4 and 5 bits in groups of 32 with minima, 6-bit
//   q3_k  3 bits in groups of 16, symmetric, signed 6-bit         q6_k        6 bits in groups of 16, symmetric, signed 8-bit
// Rows that are not made of super-blocks become q4_0 (of q2_k and q3_k), q5_0 (of q4_k), q5_1 (of q5_k), q8_0 (of q6_k):
//   q5_0, q5_1  as q4_0, q4_1, with the fifth bits of the 32 codes in four bytes before the sixteen
#pragma once
#include "export/export.h"
#include "io/gguf.h"

namespace signround {

std::unique_ptr<Exporter> make_gguf_exporter(GgmlType type, const ExportScheme& scheme);

bool is_gguf(const std::string& format);
GgmlType gguf_type(const std::string& format);  // of "gguf:q4_0"; Error{usage} if there is none
GgmlType gguf_type(const QuantSpec& spec);      // that holds such a layer; Error{bad_input} if none does

// The grid of a format whose scales have two levels; none for the others, which take the grid that is given.
std::optional<QuantSpec> gguf_grid(const std::string& format);
// The grid of a layer with so many inputs where most have this one: another if scales of two levels do not fit.
QuantSpec gguf_fallback(const QuantSpec& spec, i64 cols);

// The layer from its blocks [rows, bytes of a row]. Throws Error{bad_input} if blocks of one group have different scales.
QuantizedLinear decode_gguf(std::span<const std::byte> bytes, const std::string& name, i64 rows, i64 cols, const QuantSpec& spec,
                            DType weight_type);

}  // namespace signround
