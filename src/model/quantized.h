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
  std::vector<f16> scale;           // [rows, groups], sign included
  std::vector<u8> zero;             // [rows, groups]; 2^(bits-1) if symmetric

  i64 groups() const { return spec.groups(cols); }
};

// out[r,c] = scale * (codes[r,c] - zero), rounded once to the type of out: [rows, cols] f32, f16 or bf16, on the host.
void dequantize(Tensor out, const QuantizedLinear& layer);

}  // namespace signround
