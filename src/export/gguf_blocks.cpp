#include "export/gguf_blocks.h"

#include <map>

namespace signround {
namespace {

BlockField field(int byte, int shift, int bits) {
  return {static_cast<u8>(byte), static_cast<u8>(shift), static_cast<u8>(bits)};
}

template <class F>
std::vector<BlockInteger> each(int n, F place) {
  std::vector<BlockInteger> all;
  for (int i = 0; i < n; ++i) all.push_back(place(i));
  return all;
}

// `width` bits of each of 8/width neighbouring runs of `run` values in a byte: value i of `at`, which is the block's byte of the
// first. 4 bits, runs of 16: value i in the low half of byte i, value i + 16 in the high one.
BlockField planes(int at, int i, int run, int width) {
  const int in_byte = 8 / width;
  return field(at + i / (run * in_byte) * run + i % run, i / run % in_byte * width, width);
}

// The integers of q4_k and q5_k: the first four groups' scales and minima have six bits of bytes 0-3 and 4-7 of twelve; the last
// four's their lower four bits in bytes 8-11 and the upper two above those six.
BlockInteger packed_six(int at, int k, bool minimum) {
  const int byte = at + k % 4 + (minimum ? 4 : 0);
  if (k < 4) return {field(byte, 0, 6), {}};
  return {field(at + 4 + k, minimum ? 4 : 0, 4), field(byte, 6, 2)};
}

BlockLayout make_layout(GgmlType type) {
  BlockLayout b;
  b.size = block_of(type);
  const int n = static_cast<int>(b.size.values);
  const auto codes = [&](auto place) { b.codes = each(n, place); };
  const auto simple = [&](int at) { codes([=](int i) { return BlockInteger{planes(at, i, 16, 4), {}}; }); };
  const auto fifth = [&](int at) {  // 32 upper bits, then the lower ones
    codes([=](int i) { return BlockInteger{planes(at + 4, i, 16, 4), field(at + i / 8, i % 8, 1)}; });
  };
  switch (type) {
    case GgmlType::q4_0: simple(2); return b;
    case GgmlType::q4_1: simple(4), b.offset = 2; return b;
    case GgmlType::q5_0: fifth(2); return b;
    case GgmlType::q5_1: fifth(4), b.offset = 2; return b;
    case GgmlType::q8_0: codes([](int i) { return BlockInteger{field(2 + i, 0, 8), {}}; }); return b;
    case GgmlType::q2_0: codes([](int i) { return BlockInteger{field(2 + i / 4, i % 4 * 2, 2), {}}; }); return b;
    case GgmlType::q2_k:
      b.scale = 80, b.offset = 82;
      b.factors = each(16, [](int k) { return BlockInteger{field(k, 0, 4), {}}; });
      b.zeros = each(16, [](int k) { return BlockInteger{field(k, 4, 4), {}}; });
      codes([](int i) { return BlockInteger{planes(16, i, 32, 2), {}}; });
      return b;
    case GgmlType::q3_k:
      b.scale = 108, b.factor_bias = 32;
      b.factors = each(16, [](int k) { return BlockInteger{planes(96, k, 8, 4), planes(104, k, 4, 2)}; });
      codes([](int i) { return BlockInteger{planes(32, i, 32, 2), planes(0, i, 32, 1)}; });
      return b;
    case GgmlType::q4_k:
    case GgmlType::q5_k:
      b.offset = 2;
      b.factors = each(8, [](int k) { return packed_six(4, k, false); });
      b.zeros = each(8, [](int k) { return packed_six(4, k, true); });
      if (type == GgmlType::q4_k) codes([](int i) { return BlockInteger{planes(16, i, 32, 4), {}}; });
      else codes([](int i) { return BlockInteger{planes(48, i, 32, 4), planes(16, i, 32, 1)}; });
      return b;
    case GgmlType::q6_k:
      b.scale = 208;
      b.factors = each(16, [](int k) { return BlockInteger{field(192 + k, 0, 8), {}}; });
      // Of each half: the lower four bits of values i and i + 64 share a byte, the upper two of i, i + 32, i + 64 and i + 96.
      codes([](int i) { return BlockInteger{planes(0, i, 64, 4), planes(128, i, 32, 2)}; });
      return b;
    default: fail(ErrorKind::bug, "no blocks of the type ", static_cast<u32>(type));
  }
}

}  // namespace

const BlockLayout& layout_of(GgmlType type) {
  static const std::map<GgmlType, BlockLayout> all = [] {
    std::map<GgmlType, BlockLayout> map;
    for (const GgmlType t : {GgmlType::q4_0, GgmlType::q4_1, GgmlType::q5_0, GgmlType::q5_1, GgmlType::q8_0, GgmlType::q2_0,
                             GgmlType::q2_k, GgmlType::q3_k, GgmlType::q4_k, GgmlType::q5_k, GgmlType::q6_k})
      map[t] = make_layout(t);
    return map;
  }();
  const auto found = all.find(type);
  check(found != all.end(), ErrorKind::bug, "no blocks of the type ", static_cast<u32>(type));
  return found->second;
}

}  // namespace signround
