// The tensors of packed layers: their shapes checked, their integers and scales read.
#include <cmath>
#include <limits>
#include <span>

#include "io/bit_packing.h"
#include "model/packed.h"

namespace signround {
namespace {

std::string text_of(DType dtype, const std::vector<i64>& shape) {
  std::string dims;
  for (i64 d : shape) dims += cat(dims.empty() ? "" : ",", d);
  return cat(name_of(dtype), " [", dims, "]");
}

void check_tensor(const TensorInfo& tensor, DType dtype, const std::vector<i64>& shape) {
  check(tensor.dtype == dtype && tensor.shape == shape, ErrorKind::bad_input, tensor.name, ": ",
        text_of(tensor.dtype, tensor.shape), " where bits and group size of config.json want ", text_of(dtype, shape));
}

template <class T>
std::vector<T> read_all(const Checkpoint& checkpoint, const std::string& name) {
  std::vector<T> values(checkpoint.at(name).bytes / sizeof(T));
  checkpoint.read(name, std::as_writable_bytes(std::span(values)));
  return values;
}

// GPTQ may reorder columns by their importance; g_idx then tells the group of each.
void check_group_indices(const Checkpoint& checkpoint, const std::string& layer, i64 cols, i64 group) {
  const std::string name = layer + ".g_idx";
  const TensorInfo* tensor = checkpoint.find(name);
  if (!tensor) return;
  check_tensor(*tensor, DType::i32, {cols});
  const std::vector<i32> indices = read_all<i32>(checkpoint, name);
  for (i64 c = 0; c < cols; ++c)
    check(indices[static_cast<std::size_t>(c)] == c / group, ErrorKind::bad_input, name,
          ": groups of columns that are not neighbours (desc_act) are not supported");
}

}  // namespace

std::pair<i64, i64> PackedWeights::shape(const Checkpoint& checkpoint, const std::string& layer) const {
  const TensorInfo& codes = checkpoint.at(layer + (layout_ == Layout::compressed ? ".weight_packed" : ".qweight"));
  const QuantSpec& s = spec(layer);
  check(s.quantized(), ErrorKind::bad_input, codes.name, ": config.json says that this layer is not quantized");
  // The dimension along which words are packed, and as many values.
  const int packed = layout_ == Layout::gptq ? 0 : 1;
  const std::size_t along = static_cast<std::size_t>(packed), across = 1 - along;
  check(codes.dtype == DType::i32 && codes.shape.size() == 2 && codes.bytes > 0 && codes.shape[along] % s.bits == 0 &&
            codes.shape[across] % kPackedBlock == 0,
        ErrorKind::bad_input, codes.name, ": ", text_of(codes.dtype, codes.shape), " is no packed weight of ", s.bits, " bits");
  const i64 length = codes.shape[along] / s.bits * kPackedBlock, lanes = codes.shape[across];
  const i64 rows = layout_ == Layout::awq ? length : lanes, cols = layout_ == Layout::awq ? lanes : length;
  const i64 groups = s.groups(cols), zero_words = packed_words(rows, s.bits);
  if (layout_ == Layout::compressed) {
    check_tensor(checkpoint.at(layer + ".weight_scale"), DType::f16, {rows, groups});
    if (!s.symmetric) check_tensor(checkpoint.at(layer + ".weight_zero_point"), DType::i32, {zero_words, groups});
    check_tensor(checkpoint.at(layer + ".weight_shape"), DType::i64, {2});
    check(read_all<i64>(checkpoint, layer + ".weight_shape") == std::vector<i64>{rows, cols}, ErrorKind::bad_input, layer,
          ".weight_shape: is not [", rows, ",", cols, "], the shape of the packed weight");
  } else {
    check_tensor(checkpoint.at(layer + ".qzeros"), DType::i32, {groups, zero_words});
    check_tensor(checkpoint.at(layer + ".scales"), DType::f16, {groups, rows});
  }
  return {rows, cols};
}

// [rows, cols] values from the words of a tensor. along_rows: a word holds values of neighbouring rows; words lie row-major with
// the packed dimension first in GPTQ's codes and in compressed-tensors' zero points, last elsewhere.
std::vector<u8> PackedWeights::unpacked(const Checkpoint& checkpoint, const std::string& tensor, i64 rows, i64 cols,
                                        const QuantSpec& spec, bool along_rows) const {
  const std::vector<u32> words = read_all<u32>(checkpoint, tensor);
  std::vector<u8> values(static_cast<std::size_t>(rows * cols));
  const i64 length = along_rows ? rows : cols, lanes = along_rows ? cols : rows, lane_words = packed_words(length, spec.bits);
  const bool packed_first = layout_ == (along_rows ? Layout::compressed : Layout::gptq);
  const Lanes<const u32> from{words.data(), packed_first ? lanes : 1, packed_first ? 1 : lane_words};
  unpack_bits({values.data(), along_rows ? cols : 1, along_rows ? 1 : cols}, from, length, lanes, spec.bits);
  return layout_ == Layout::awq ? awq_restore(values, rows, cols) : values;
}

QuantizedLinear PackedWeights::read(const Checkpoint& checkpoint, const std::string& layer, DType weight_type) const {
  const auto [rows, cols] = shape(checkpoint, layer);
  const QuantSpec& s = spec(layer);
  const i64 groups = s.groups(cols);
  const bool compressed = layout_ == Layout::compressed;
  check_group_indices(checkpoint, layer, cols, s.group_of(cols));
  QuantizedLinear out{layer, rows, cols, s, weight_type, {}, {}, {}};
  out.codes = unpacked(checkpoint, layer + (compressed ? ".weight_packed" : ".qweight"), rows, cols, s, layout_ == Layout::awq);

  if (compressed && s.symmetric) out.zero.assign(static_cast<std::size_t>(rows * groups), static_cast<u8>(1 << (s.bits - 1)));
  else out.zero = unpacked(checkpoint, layer + (compressed ? ".weight_zero_point" : ".qzeros"), rows, groups, s, true);
  for (u8& z : out.zero) {
    const int zero = z + zero_offset_;
    check(s.symmetric ? zero == 1 << (s.bits - 1) : zero <= std::numeric_limits<u8>::max(), ErrorKind::bad_input, layer,
          ".qzeros: a zero point of ", zero, " cannot be in ", s.symmetric ? "a symmetric" : "an asymmetric", " grid of ", s.bits,
          " bits");
    z = static_cast<u8>(zero);
  }

  const std::string name = layer + (compressed ? ".weight_scale" : ".scales");
  const std::vector<f16> scales = read_all<f16>(checkpoint, name);
  out.scale.resize(static_cast<std::size_t>(rows * groups));
  for (i64 row = 0; row < rows; ++row)
    for (i64 g = 0; g < groups; ++g) {
      const i64 at = compressed ? row * groups + g : g * rows + row;
      const f16 scale = scales[static_cast<std::size_t>(at)];
      check(std::isfinite(static_cast<float>(scale)), ErrorKind::bad_input, name, ": element ",
            compressed ? cat("[", row, ",", g, "]") : cat("[", g, ",", row, "]"), " is not finite");
      out.scale[static_cast<std::size_t>(row * groups + g)] = scale;
    }
  return out;
}

}  // namespace signround
