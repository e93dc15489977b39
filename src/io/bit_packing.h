// Integers of 2..8 bits in 32-bit words, as the GPTQ family of formats stores them: a dense bit stream along one dimension, least
// significant bit first, value i at bits [i*bits, (i+1)*bits). 32 values fill `bits` words exactly. With 2, 4 or 8 bits that is
// 32/bits whole fields a word; with 3 bits values 10 and 21 of 32 straddle two words.
#pragma once
#include <vector>

#include "base/dtype.h"

namespace signround {

inline constexpr i64 kPackedBlock = 32;  // values; the packed dimension is a multiple of it

constexpr i64 packed_words(i64 values, int bits) { return values / kPackedBlock * bits; }

// A matrix seen from the dimension that is packed: steps, in elements, to the next element of a lane and to the next lane.
template <class T>
struct Lanes {
  T* data;
  i64 along, across;
};

// `lanes` streams of `length` values each. Higher bits of a value than `bits` must be zero.
void pack_bits(Lanes<u32> words, Lanes<const u8> values, i64 length, i64 lanes, int bits);
void unpack_bits(Lanes<u8> values, Lanes<const u32> words, i64 length, i64 lanes, int bits);

// AWQ packs eight neighbouring rows of a [rows, cols] matrix into a word, row 8k+j as nibble kAwqNibble[j]. Interleaving puts the
// rows into that order, so that pack_bits() along the rows makes its words; the inverse undoes it. rows: a multiple of 8.
inline constexpr int kAwqNibble[8] = {0, 4, 1, 5, 2, 6, 3, 7};
std::vector<u8> awq_interleave(const std::vector<u8>& values, i64 rows, i64 cols);
std::vector<u8> awq_restore(const std::vector<u8>& values, i64 rows, i64 cols);

}  // namespace signround
