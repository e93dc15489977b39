#include "model/model.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <span>
#include <utility>

#include "io/transpose.h"

namespace signround {
namespace {

bool is_float(DType d) { return d == DType::f32 || d == DType::f16 || d == DType::bf16; }

// Bits of the exponent that are all set in infinities and NaN alone.
template <class Word>
void require_finite(const std::string& name, const std::byte* data, i64 count, Word exponent) {
  for (i64 i = 0; i < count; ++i) {
    Word word;
    std::memcpy(&word, data + static_cast<size_t>(i) * sizeof word, sizeof word);
    if ((word & exponent) == exponent) [[unlikely]]
      fail(ErrorKind::bad_input, "tensor \"", name, "\" has NaN or infinity at index ", i, ": the checkpoint is damaged");
  }
}

void require_finite(const std::string& name, std::span<const std::byte> bytes, DType dtype, i64 count) {
  if (dtype == DType::f32) return require_finite<u32>(name, bytes.data(), count, 0x7F800000u);
  if (dtype == DType::f16) return require_finite<u16>(name, bytes.data(), count, u16{0x7C00});
  require_finite<u16>(name, bytes.data(), count, u16{0x7F80});
}

std::string text_of(const std::vector<i64>& dims) {
  std::string s;
  for (i64 d : dims) s += cat(s.empty() ? "" : ",", d);
  return "[" + s + "]";
}

void require_shape(const std::string& name, const std::vector<i64>& found, const std::vector<i64>& wanted) {
  check(found == wanted, ErrorKind::bad_input, "tensor \"", name, "\" is ", text_of(found), ", but config.json asks for ",
        text_of(wanted));
}

// Files of a model saved without its head lack the base that all other names begin with, and those of text models among others
// have them the other way round. What is written has the names of the class.
void use_names_of(const Family& family, Checkpoint& checkpoint) {
  const std::string blocks = family.block_prefix, base = blocks.substr(0, blocks.find('.') + 1);
  constexpr std::string_view kText = "language_model.", kTextModel = "language_model.model.";
  const auto any = [&](std::string_view start) {
    const std::vector<const TensorInfo*> tensors = checkpoint.tensors();
    return std::any_of(tensors.begin(), tensors.end(), [&](const TensorInfo* t) { return t->name.starts_with(start); });
  };
  if (any(base)) return;
  const bool among_others = any(kText);
  checkpoint.rename([&](const std::string& name) {
    if (name.starts_with(kTextModel)) return base + std::string(kText) + name.substr(kTextModel.size());
    if (name.starts_with(kText)) return name.substr(kText.size());  // the head
    const bool head = name.starts_with("lm_head.") || name.starts_with("embed_out.");  // the latter is GPT-NeoX's
    return among_others || head ? name : base + name;
  });
}

// "model.layers.0.mlp.up_proj.weight" -> "model.layers.0.mlp.up_proj"
std::string layer_of(const std::string& weight) { return weight.substr(0, weight.rfind('.')); }

}  // namespace

Model::Model(const std::string& directory)
    : checkpoint_(directory),
      config_(within((checkpoint_.path() / "config.json").string(), [&] { return read_config(checkpoint_.config()); })),
      family_(family_of(config_)),
      packed_(PackedWeights::described_by(checkpoint_.config())) {
  use_names_of(family_, checkpoint_);
  check_shapes(family_.embedding(config_));
  for (i64 i = 0; i < config_.layers; ++i) check_shapes(family_.block(config_, i));
  check_shapes(family_.head(config_));
}

bool Model::is_packed(const std::string& weight) const {
  // A packed layer's bias stays as it was.
  return packed_ && weight.ends_with(".weight") && packed_->holds(checkpoint_, layer_of(weight));
}

void Model::check_shapes(const Program& program) {
  for (const WeightRef& w : program.weights) {
    const std::string name = program.prefix + w.name;
    if (w.experts == 0) check_shape(name, w);
    for (i64 e = 0; e < w.experts; ++e) {
      check_shape(of_expert(name, e), w);
      check(weight_type(of_expert(name, e)) == weight_type(name), ErrorKind::bad_input, "tensor \"", of_expert(name, e),
            "\" has another type than the other experts'");
    }
  }
}

void Model::check_shape(const std::string& name, const WeightRef& w) {
  std::vector<i64> wanted = {w.experts > 0 ? w.rows / w.experts : w.rows};
  if (w.cols > 0) wanted.push_back(w.cols);
  if (is_packed(name)) {
    const auto [rows, cols] = packed_->shape(checkpoint_, layer_of(name));
    return require_shape(name, {rows, cols}, wanted);
  }
  if (w.transposed) {
    transposed_.insert(name);
    std::swap(wanted[0], wanted[1]);
  }
  if (w.unit_rows) unit_rows_.insert(name);
  const WeightPlace place = find_weight(checkpoint_, name);
  const std::string& tensor = place.tensor->name;
  require_shape(name, place.shape, wanted);
  check(is_float(place.tensor->dtype), ErrorKind::bad_input, checkpoint_.file_of(tensor).string(), ": tensor \"", tensor,
        "\" is ", name_of(place.tensor->dtype), "; weights must be F32, F16 or BF16");
}

DType Model::weight_type(const std::string& name) const {
  if (unit_rows_.count(name)) return DType::f32;
  const std::string first = name.find('*') == name.npos ? name : of_expert(name, 0);
  return is_packed(first) ? config_.dtype : find_weight(checkpoint_, first).tensor->dtype;
}

std::vector<std::byte> Model::read(const std::string& name, Tensor shape, bool refuse_nonfinite) const {
  if (unit_rows_.count(name)) return read_unit_rows(name, shape);
  std::vector<std::byte> bytes(static_cast<size_t>(shape.bytes()));
  shape.data = bytes.data();
  if (name.find('*') == name.npos) {
    read_one(name, shape, refuse_nonfinite);
  } else {
    const i64 experts = config_.experts.count, rows = shape.rows() / experts;
    for (i64 e = 0; e < experts; ++e) read_one(of_expert(name, e), shape.slice(e * rows, rows), refuse_nonfinite);
  }
  return transposed_.count(name) ? transpose(bytes, shape.cols(), shape.rows()) : bytes;
}

void Model::read_one(const std::string& name, Tensor to, bool refuse_nonfinite) const {
  if (is_packed(name)) return dequantize(to, packed_->read(checkpoint_, layer_of(name), to.dtype));
  const WeightPlace place = find_weight(checkpoint_, name);
  const std::span<std::byte> bytes(static_cast<std::byte*>(to.data), static_cast<size_t>(to.bytes()));
  checkpoint_.read_part(place.tensor->name, place.first, bytes);
  if (refuse_nonfinite)
    within(checkpoint_.file_of(place.tensor->name).string(), [&] { require_finite(name, bytes, to.dtype, to.size()); });
}

std::vector<std::byte> Model::read_unit_rows(const std::string& name, Tensor shape) const {
  const TensorInfo& tensor = checkpoint_.at(name);
  std::vector<std::byte> stored(tensor.bytes), bytes(static_cast<size_t>(shape.size()) * sizeof(float));
  checkpoint_.read(name, stored);
  within(checkpoint_.file_of(name).string(), [&] { require_finite(name, stored, tensor.dtype, shape.size()); });
  const auto divide = [&](const auto* from) {
    for (i64 row = 0; row < shape.rows(); ++row) {
      double squares = 0;
      for (i64 i = row * shape.cols(); i < (row + 1) * shape.cols(); ++i) squares += std::pow(static_cast<double>(from[i]), 2);
      const double length = std::max(std::sqrt(squares), 1e-12);  // a row of zeros stays one
      for (i64 i = row * shape.cols(); i < (row + 1) * shape.cols(); ++i) {
        const float unit = static_cast<float>(static_cast<double>(from[i]) / length);
        std::memcpy(&bytes[static_cast<size_t>(i) * sizeof unit], &unit, sizeof unit);
      }
    }
  };
  if (tensor.dtype == DType::f32) divide(reinterpret_cast<const float*>(stored.data()));
  else if (tensor.dtype == DType::f16) divide(reinterpret_cast<const f16*>(stored.data()));
  else divide(reinterpret_cast<const bf16*>(stored.data()));
  return bytes;
}

}  // namespace signround
