// What the tests of exporters and of packed weights share: a layer of random integers, and the errors of a call.
#pragma once
#include <doctest/doctest.h>

#include <string>

#include "model/quantized.h"

namespace signround {

inline QuantizedLinear make_layer(i64 rows, i64 cols, const QuantSpec& spec, DType weight_type = DType::bf16) {
  QuantizedLinear layer{"model.layers.0.mlp.up_proj", rows, cols, spec, weight_type, {}, {}, {}};
  u32 random = 12345;
  const auto next = [&] { return (random = random * 1664525u + 1013904223u) >> 8; };
  for (i64 i = 0; i < rows * cols; ++i) layer.codes.push_back(static_cast<u8>(next() % (1u << spec.bits)));
  for (i64 i = 0; i < rows * layer.groups(); ++i) {
    layer.scale.push_back(f16((static_cast<float>(next() % 2001) - 1000) * 1e-4f + 1e-5f));
    layer.zero.push_back(static_cast<u8>(spec.symmetric ? 1u << (spec.bits - 1) : 1 + next() % ((1u << spec.bits) - 1)));
  }
  return layer;
}

// The message of the Error that f throws, which must be of this kind; else "no error".
template <class F>
std::string message_of(ErrorKind kind, F&& f) {
  try {
    f();
  } catch (const Error& e) {
    CHECK(e.kind == kind);
    return e.message;
  }
  return "no error";
}

inline bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace signround
