#include "model/quantized.h"

#include <algorithm>

namespace signround {
namespace {

template <class T>
void dequantize_to(T* out, const QuantizedLinear& layer) {
  const i64 group = layer.spec.group_of(layer.cols), groups = layer.groups();
  for (i64 row = 0; row < layer.rows; ++row) {
    const u8* code = layer.codes.data() + row * layer.cols;
    for (i64 g = 0; g < groups; ++g) {
      const float scale = layer.scale[static_cast<std::size_t>(row * groups + g)];
      const int zero = layer.zero[static_cast<std::size_t>(row * groups + g)];
      // Exact in float: 11 bits of the scale times at most 9 of the difference. The conversion is the only rounding.
      for (i64 c = g * group; c < std::min((g + 1) * group, layer.cols); ++c)
        out[row * layer.cols + c] = static_cast<T>(scale * static_cast<float>(code[c] - zero));
    }
  }
}

}  // namespace

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
