#include "model/quantized.h"

#include <algorithm>

namespace signround {
namespace {

template <class T>
void dequantize_to(T* out, const QuantizedLinear& layer) {
  const i64 group = layer.spec.group_of(layer.cols), groups = layer.groups(), shared = layer.spec.shared();
  const bool two_levels = layer.spec.two_levels(), with_offset = !layer.offset.empty();
  for (i64 row = 0; row < layer.rows; ++row) {
    const u8* code = layer.codes.data() + row * layer.cols;
    for (i64 g = 0; g < groups; ++g) {
      const std::size_t at = static_cast<std::size_t>(row * groups + g), super = at / static_cast<std::size_t>(shared);
      const float scale = static_cast<float>(layer.scale[super]) * (two_levels ? static_cast<float>(layer.factor[at]) : 1.0f);
      const float offset = with_offset ? static_cast<float>(layer.offset[super]) * static_cast<float>(layer.zero[at]) : 0.0f;
      const int zero = with_offset ? 0 : layer.zero[at];
      // Products are exact in float: 11 bits of an f16 times 8 of a factor times 6 of a code, or times 9 of a difference. Only
      // an offset's subtraction rounds, and then the conversion.
      for (i64 c = g * group; c < std::min((g + 1) * group, layer.cols); ++c)
        out[row * layer.cols + c] = static_cast<T>(scale * static_cast<float>(code[c] - zero) - offset);
    }
  }
}

}  // namespace

void resize_grid(QuantizedLinear& layer) {
  const std::size_t groups = static_cast<std::size_t>(layer.rows * layer.groups());
  const std::size_t scales = static_cast<std::size_t>(layer.rows * layer.scales());
  layer.codes.resize(static_cast<std::size_t>(layer.rows * layer.cols));
  layer.scale.resize(scales);
  layer.zero.resize(groups);
  layer.factor.resize(layer.spec.two_levels() ? groups : 0);
  layer.offset.resize(layer.spec.two_levels() && !layer.spec.symmetric ? scales : 0);
}

GridTensors grid_tensors(QuantizedLinear& layer) {
  const auto tensor = [](auto& x, DType type) {
    return x.empty() ? Tensor{} : view(x.data(), type, static_cast<i64>(x.size()));
  };
  return {tensor(layer.codes, DType::u8), tensor(layer.scale, DType::f16), tensor(layer.zero, DType::u8),
          tensor(layer.factor, DType::i8), tensor(layer.offset, DType::f16)};
}

void dequantize(Tensor out, const QuantizedLinear& layer) {
  check(out.size() == layer.rows * layer.cols, ErrorKind::bug, layer.name, ": ", layer.rows, " x ", layer.cols,
        " weights do not fit a tensor of ", out.size());
  switch (out.dtype) {
    case DType::f32: return dequantize_to(out.as<float>(), layer);
    case DType::f16: return dequantize_to(out.as<f16>(), layer);
    case DType::bf16: return dequantize_to(out.as<bf16>(), layer);
    default: fail(ErrorKind::bug, layer.name, ": cannot dequantize to ", name_of(out.dtype));
  }
}

}  // namespace signround
