#include "export/packed_awq.h"

#include "export/packed_int32.h"
#include "io/bit_packing.h"

namespace signround {
namespace {

constexpr int kBits = 4;

}  // namespace

bool awq_holds(const QuantSpec& spec) { return spec.bits == kBits && !spec.symmetric; }

void require_awq(const std::string& name, i64 rows, i64 cols, const QuantSpec& spec) {
  check(spec.bits == kBits, ErrorKind::usage, name, ": AWQ has no ", spec.bits, " bits; the nearest is --bits 4");
  check(!spec.symmetric, ErrorKind::usage, name,
        ": AWQ is asymmetric; the nearest is --asym, or --format gptq for the symmetric grid");
  require_whole_blocks(name, rows, cols);
  require_whole_groups(name, cols, spec);
}

std::vector<TensorInfo> layout_awq(const std::string& name, i64 rows, i64 cols, const QuantSpec& spec) {
  const i64 groups = spec.groups(cols), words = packed_words(rows, kBits);
  return {tensor_info(name + ".qweight", DType::i32, {cols, words}), tensor_info(name + ".qzeros", DType::i32, {groups, words}),
          tensor_info(name + ".scales", DType::f16, {groups, rows})};
}

std::vector<EncodedTensor> encode_awq(const QuantizedLinear& layer) {
  const i64 rows = layer.rows, cols = layer.cols, groups = layer.groups(), words = packed_words(rows, kBits);
  std::vector<EncodedTensor> out = empty_tensors(layout_awq(layer.name, rows, cols, layer.spec));
  const auto pack = [&](EncodedTensor& to, const std::vector<u8>& values, i64 width) {
    const std::vector<u8> interleaved = awq_interleave(values, rows, width);
    pack_bits({reinterpret_cast<u32*>(to.bytes.data()), 1, words}, {interleaved.data(), width, 1}, rows, width, kBits);
  };
  pack(out[0], layer.codes, cols);
  pack(out[1], layer.zero, groups);
  put_scales_transposed(out[2], layer);
  return out;
}

}  // namespace signround
