#include "io/bit_packing.h"

#include <algorithm>
#include <type_traits>

#include "base/error.h"

namespace signround {
namespace {

template <int bits>
void pack_block(u32* word, i64 word_step, const u8* value, i64 value_step) {
  u64 pending = 0;
  int filled = 0;
  for (int i = 0; i < kPackedBlock; ++i, value += value_step) {
    pending |= u64{*value} << filled;
    filled += bits;
    if (filled < 32) continue;
    *word = static_cast<u32>(pending);
    word += word_step;
    pending >>= 32;
    filled -= 32;
  }
}

template <int bits>
void unpack_block(u8* value, i64 value_step, const u32* word, i64 word_step) {
  u64 pending = 0;
  int left = 0;
  for (int i = 0; i < kPackedBlock; ++i, value += value_step) {
    if (left < bits) {
      pending |= u64{*word} << left;
      word += word_step;
      left += 32;
    }
    *value = static_cast<u8>(pending & ((1u << bits) - 1));
    pending >>= bits;
    left -= bits;
  }
}

// block(lane, first value) for all blocks, sixteen lanes at a time: a cache line of words where lanes are neighbours in memory.
template <class F>
void for_blocks(i64 length, i64 lanes, const F& block) {
  for (i64 first = 0; first < lanes; first += 16)
    for (i64 at = 0; at < length; at += kPackedBlock)
      for (i64 lane = first; lane < std::min(first + 16, lanes); ++lane) block(lane, at);
}

// f(std::integral_constant<int, bits>) for the bits at hand, so that the inner loops know their shifts.
template <class F>
void with_bits(int bits, const F& f) {
  switch (bits) {
    case 2: return f(std::integral_constant<int, 2>());
    case 3: return f(std::integral_constant<int, 3>());
    case 4: return f(std::integral_constant<int, 4>());
    case 5: return f(std::integral_constant<int, 5>());
    case 6: return f(std::integral_constant<int, 6>());
    case 7: return f(std::integral_constant<int, 7>());
    case 8: return f(std::integral_constant<int, 8>());
    default: fail(ErrorKind::bug, "cannot pack values of ", bits, " bits");
  }
}

void check_length(i64 length) {
  check(length % kPackedBlock == 0, ErrorKind::bug, "cannot pack ", length, " values: not a multiple of ", kPackedBlock);
}

}  // namespace

void pack_bits(Lanes<u32> words, Lanes<const u8> values, i64 length, i64 lanes, int bits) {
  check_length(length);
  with_bits(bits, [&]<int b>(std::integral_constant<int, b>) {
    for_blocks(length, lanes, [&](i64 lane, i64 at) {
      pack_block<b>(words.data + lane * words.across + packed_words(at, b) * words.along, words.along,
                    values.data + lane * values.across + at * values.along, values.along);
    });
  });
}

void unpack_bits(Lanes<u8> values, Lanes<const u32> words, i64 length, i64 lanes, int bits) {
  check_length(length);
  with_bits(bits, [&]<int b>(std::integral_constant<int, b>) {
    for_blocks(length, lanes, [&](i64 lane, i64 at) {
      unpack_block<b>(values.data + lane * values.across + at * values.along, values.along,
                      words.data + lane * words.across + packed_words(at, b) * words.along, words.along);
    });
  });
}

std::vector<u8> awq_interleave(const std::vector<u8>& values, i64 rows, i64 cols) {
  std::vector<u8> out(values.size());
  for (i64 row = 0; row < rows; ++row)
    std::copy_n(values.begin() + row * cols, cols, out.begin() + (row / 8 * 8 + kAwqNibble[row % 8]) * cols);
  return out;
}

std::vector<u8> awq_restore(const std::vector<u8>& values, i64 rows, i64 cols) {
  std::vector<u8> out(values.size());
  for (i64 row = 0; row < rows; ++row)
    std::copy_n(values.begin() + (row / 8 * 8 + kAwqNibble[row % 8]) * cols, cols, out.begin() + row * cols);
  return out;
}

}  // namespace signround
