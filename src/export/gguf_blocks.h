// Where everything lies in a block of GGUF: one description, by which blocks are written and read.
//   q4_0, q5_0          F16 scale; the codes
//   q4_1, q5_1          F16 scale, F16 minimum; the codes
//   q8_0, q2_0          F16 scale; the codes
//   q4_k, q5_k, q2_k    F16 scale and F16 step of the minima of 256 weights; for each group of them an integer each; the codes
//   q3_k, q6_k          F16 scale of 256 weights; for each group a signed integer; the codes
// Integers that are wider than the place for them in a byte have a second field with their upper bits.
#pragma once
#include <array>
#include <vector>

#include "io/gguf.h"

namespace signround {

// `bits` bits from bit `shift` of byte `byte`; 0 bits: none.
struct BlockField {
  u8 byte = 0, shift = 0, bits = 0;
};
using BlockInteger = std::array<BlockField, 2>;  // the lower bits first

struct BlockLayout {
  GgmlBlock size{};
  int scale = 0, offset = -1;         // bytes of F16 numbers; offset -1: there is none
  std::vector<BlockInteger> codes;    // one a weight
  std::vector<BlockInteger> factors;  // one a group of scales of two levels
  std::vector<BlockInteger> zeros;    // one a group of asymmetric grids of two levels
  int factor_bias = 0;                // added to a factor before its bits are written
};
// Throws Error{bug} for a type without integers.
const BlockLayout& layout_of(GgmlType type);

inline int get(const u8* block, const BlockInteger& at) {
  const auto part = [&](const BlockField& f) { return block[f.byte] >> f.shift & ((1 << f.bits) - 1); };
  return part(at[0]) | part(at[1]) << at[0].bits;
}
// Into bits that are 0.
inline void put(u8* block, const BlockInteger& at, int value) {
  block[at[0].byte] = static_cast<u8>(block[at[0].byte] | (value & ((1 << at[0].bits) - 1)) << at[0].shift);
  block[at[1].byte] = static_cast<u8>(block[at[1].byte] | (value >> at[0].bits & ((1 << at[1].bits) - 1)) << at[1].shift);
}

}  // namespace signround
