#include "model/packed.h"

#include <cmath>
#include <limits>
#include <span>
#include <vector>

#include "io/bit_packing.h"

namespace signround {
namespace {

QuantSpec read_spec(const Json& json, const QuantSpec& fallback) {
  const i64 bits = json.integer("bits", fallback.bits), group = json.integer("group_size", fallback.group);
  const QuantSpec spec{static_cast<int>(bits), group, json.boolean("sym", fallback.symmetric)};
  if (bits == 16) return spec;
  check(bits >= 2 && bits <= 8, ErrorKind::bad_input, "bits ", bits,
        " is not supported; supported: 2 to 8, and 16 for layers left alone");
  check(group == -1 || group > 0, ErrorKind::bad_input, "group_size ", group,
        " is not supported; supported: -1 and positive numbers");
  const std::string type = json.string("data_type", "int");
  check(type == "int", ErrorKind::bad_input, "data_type ", quote(type), " is not supported; supported: int");
  check(json.integer("act_bits", 16) >= 16, ErrorKind::bad_input, "quantized activations (act_bits) are not supported");
  return spec;
}

// 1 where the format stores zero points less one.
int read_zero_offset(const Json& json) {
  const std::string& method = json.string("quant_method");
  if (method == "gptq") {
    const std::string version = json.string("checkpoint_format", "gptq");
    check(version == "gptq" || version == "gptq_v2", ErrorKind::bad_input, "checkpoint_format ", quote(version),
          " is not supported; supported: gptq, gptq_v2");
    return version == "gptq" ? 1 : 0;
  }
  check(method == "auto-round" || method == "auto_round" || method == "intel/auto-round", ErrorKind::bad_input, "quant_method ",
        quote(method), " is not supported; supported: auto-round, gptq");
  const std::string packing = json.string("packing_format", "auto_round:auto_gptq");
  check(packing == "auto_round:auto_gptq" || packing == "auto_round", ErrorKind::bad_input, "packing_format ", quote(packing),
        " is not supported; supported: auto_round:auto_gptq, auto_round");
  return packing == "auto_round" ? 0 : 1;
}

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

std::optional<PackedWeights> PackedWeights::described_by(const Json& config) {
  const Json* json = config.find("quantization_config");
  if (!json || json->is_null()) return std::nullopt;
  return within("config.json: quantization_config", [&] {
    PackedWeights packed;
    packed.zero_offset_ = read_zero_offset(*json);
    json->integer("bits");  // the one key without a default
    packed.spec_ = read_spec(*json, {});
    // Keys are names of layers, and patterns that auto-round writes beside the names of all layers they match.
    if (const Json* extra = json->find("extra_config"); extra && !extra->is_null())
      for (const JsonMember& member : extra->object())
        packed.exceptions_[member.key] =
            within(cat("extra_config: ", quote(member.key)), [&] { return read_spec(member.value, packed.spec_); });
    // GPTQ has patterns alone: "-:" for layers that are not packed, which shows in the tensors, "+:" for another grid.
    if (const Json* dynamic = json->find("dynamic"); dynamic && !dynamic->is_null())
      for (const JsonMember& member : dynamic->object())
        check(member.key.starts_with("-:"), ErrorKind::bad_input, "dynamic: ", quote(member.key),
              ": other bits or groups for some layers are not supported");
    return std::optional(std::move(packed));
  });
}

const QuantSpec& PackedWeights::spec(const std::string& layer) const {
  const auto found = exceptions_.find(layer);
  return found == exceptions_.end() ? spec_ : found->second;
}

std::pair<i64, i64> PackedWeights::shape(const Checkpoint& checkpoint, const std::string& layer) const {
  const TensorInfo& qweight = checkpoint.at(layer + ".qweight");
  const QuantSpec& s = spec(layer);
  check(s.quantized(), ErrorKind::bad_input, qweight.name, ": config.json says that this layer is not quantized");
  check(qweight.dtype == DType::i32 && qweight.shape.size() == 2 && qweight.bytes > 0 && qweight.shape[0] % s.bits == 0 &&
            qweight.shape[1] % kPackedBlock == 0,
        ErrorKind::bad_input, qweight.name, ": ", text_of(qweight.dtype, qweight.shape), " is no packed weight of ", s.bits,
        " bits");
  const i64 rows = qweight.shape[1], cols = qweight.shape[0] / s.bits * kPackedBlock, groups = s.groups(cols);
  check_tensor(checkpoint.at(layer + ".qzeros"), DType::i32, {groups, packed_words(rows, s.bits)});
  check_tensor(checkpoint.at(layer + ".scales"), DType::f16, {groups, rows});
  return {rows, cols};
}

QuantizedLinear PackedWeights::read(const Checkpoint& checkpoint, const std::string& layer, DType weight_type) const {
  const auto [rows, cols] = shape(checkpoint, layer);
  const QuantSpec& s = spec(layer);
  const i64 groups = s.groups(cols);
  check_group_indices(checkpoint, layer, cols, s.group_of(cols));
  QuantizedLinear out{layer, rows, cols, s, weight_type, {}, {}, {}};

  out.codes.resize(static_cast<std::size_t>(rows * cols));
  const std::vector<u32> qweight = read_all<u32>(checkpoint, layer + ".qweight");
  unpack_bits({out.codes.data(), 1, cols}, {qweight.data(), rows, 1}, cols, rows, s.bits);

  out.zero.resize(static_cast<std::size_t>(rows * groups));
  const std::vector<u32> qzeros = read_all<u32>(checkpoint, layer + ".qzeros");
  unpack_bits({out.zero.data(), groups, 1}, {qzeros.data(), 1, packed_words(rows, s.bits)}, rows, groups, s.bits);
  for (u8& z : out.zero) {
    const int zero = z + zero_offset_;
    check(s.symmetric ? zero == 1 << (s.bits - 1) : zero <= std::numeric_limits<u8>::max(), ErrorKind::bad_input, layer,
          ".qzeros: a zero point of ", zero, " cannot be in ", s.symmetric ? "a symmetric" : "an asymmetric", " grid of ", s.bits,
          " bits");
    z = static_cast<u8>(zero);
  }

  out.scale.resize(static_cast<std::size_t>(rows * groups));
  const std::vector<f16> scales = read_all<f16>(checkpoint, layer + ".scales");
  for (i64 row = 0; row < rows; ++row)
    for (i64 g = 0; g < groups; ++g) {
      const f16 scale = scales[static_cast<std::size_t>(g * rows + row)];
      check(std::isfinite(static_cast<float>(scale)), ErrorKind::bad_input, layer, ".scales: element [", g, ",", row,
            "] is not finite");
      out.scale[static_cast<std::size_t>(row * groups + g)] = scale;
    }
  return out;
}

}  // namespace signround
