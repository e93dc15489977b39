// One tuned linear layer on the host: the integers and scales that every exporter starts from and every packed checkpoint holds.
#pragma once
#include <string>
#include <vector>

#include "ops/ops.h"

namespace signround {

struct QuantizedLinear {
  std::string name;        // of the layer: "model.layers.0.mlp.up_proj"
  i64 rows = 0, cols = 0;  // out, in
  QuantSpec spec;
  DType weight_type = DType::bf16;  // of the original weight: f32, f16 or bf16
  std::vector<u8> codes;            // [rows, cols] in [0, 2^bits)
  std::vector<f16> scale;           // [rows, scales of a row], sign included
  std::vector<u8> zero;             // [rows, groups]; 2^(bits-1) if symmetric
  std::vector<i8> factor = {};      // [rows, groups]: two levels alone
  std::vector<f16> offset = {};     // [rows, scales of a row]: two levels and asymmetric alone

  i64 groups() const { return spec.groups(cols); }
  i64 scales() const { return spec.scales(cols); }
};

// The vectors by the names of GridTensors (ops/ops.h): sized for the spec, and as tensors of the host.
void resize_grid(QuantizedLinear& layer);
GridTensors grid_tensors(QuantizedLinear& layer);

// The weights (GridTensors has the formula) in f32, rounded to the type of out: [rows, cols] f32, f16 or bf16, on the host.
void dequantize(Tensor out, const QuantizedLinear& layer);

}  // namespace signround
