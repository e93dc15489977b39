#include "export/packed_int32.h"

#include <algorithm>
#include <cstdlib>

#include "io/bit_packing.h"

namespace signround {

void require_packed_int32(const std::string& name, i64 rows, i64 cols, const QuantSpec& spec) {
  constexpr int kBits[] = {4, 8, 3, 2};  // of two at the same distance the more accurate one
  const int nearest = *std::min_element(std::begin(kBits), std::end(kBits),
                                        [&](int a, int b) { return std::abs(a - spec.bits) < std::abs(b - spec.bits); });
  check(spec.bits == nearest, ErrorKind::usage, name, ": this format has no ", spec.bits, " bits; the nearest is --bits ",
        nearest, spec.symmetric ? ", or --format compressed-tensors" : "");
  require_whole_blocks(name, rows, cols);
}

void require_whole_blocks(const std::string& name, i64 rows, i64 cols) {
  check(rows % kPackedBlock == 0 && cols % kPackedBlock == 0, ErrorKind::usage, name, ": this format packs ", kPackedBlock,
        " values at a time, and ", rows, " x ", cols, " is no multiple of it both ways; leave it out with --ignore-layers ",
        name);
}

void require_whole_groups(const std::string& name, i64 cols, const QuantSpec& spec) {
  check(cols % spec.group_of(cols) == 0, ErrorKind::usage, name, ": this format wants whole groups, and ", cols,
        " inputs are no multiple of ", spec.group, "; the nearest is --group-size 32");
}

std::vector<TensorInfo> layout_packed_int32(const std::string& name, i64 rows, i64 cols, const QuantSpec& spec) {
  const i64 groups = spec.groups(cols);
  return {tensor_info(name + ".qweight", DType::i32, {packed_words(cols, spec.bits), rows}),
          tensor_info(name + ".qzeros", DType::i32, {groups, packed_words(rows, spec.bits)}),
          tensor_info(name + ".scales", DType::f16, {groups, rows})};
}

std::vector<EncodedTensor> encode_packed_int32(const QuantizedLinear& layer, int zero_offset) {
  const i64 rows = layer.rows, cols = layer.cols, groups = layer.groups();
  const int bits = layer.spec.bits;
  std::vector<EncodedTensor> out = empty_tensors(layout_packed_int32(layer.name, rows, cols, layer.spec));

  pack_bits({reinterpret_cast<u32*>(out[0].bytes.data()), rows, 1}, {layer.codes.data(), 1, cols}, cols, rows, bits);

  std::vector<u8> zero = layer.zero;
  for (u8& z : zero) {
    check(z >= zero_offset && z - zero_offset < 1 << bits, ErrorKind::bug, layer.name, ": zero point ", int{z},
          " cannot be stored in ", bits, " bits");
    z = static_cast<u8>(z - zero_offset);
  }
  pack_bits({reinterpret_cast<u32*>(out[1].bytes.data()), 1, packed_words(rows, bits)}, {zero.data(), groups, 1}, rows, groups,
            bits);
  put_scales_transposed(out[2], layer);
  return out;
}

void put_scales_transposed(EncodedTensor& to, const QuantizedLinear& layer) {
  const i64 rows = layer.rows, groups = layer.groups();
  f16* scale = reinterpret_cast<f16*>(to.bytes.data());
  for (i64 row = 0; row < rows; ++row)
    for (i64 g = 0; g < groups; ++g) scale[g * rows + row] = layer.scale[static_cast<std::size_t>(row * groups + g)];
}

}  // namespace signround
