// What the tests of whole models share: a program loaded on a backend, and the tensors of a file as vectors.
#pragma once
#include <doctest/doctest.h>

#include "io/safetensors.h"
#include "model/stage.h"
#include "testing.h"

namespace signround {

template <class T>
std::vector<T> read_values(const SafetensorsFile& file, const std::string& name) {
  for (const TensorInfo& t : file.tensors()) {
    if (t.name != name) continue;
    REQUIRE(t.bytes % sizeof(T) == 0);
    std::vector<T> values(t.bytes / sizeof(T));
    file.read(t, std::as_writable_bytes(std::span(values)));
    return values;
  }
  FAIL("no tensor ", name);
  return {};
}

// Floats to a tensor of float or bf16 on a backend, and back.
inline void write_floats(Backend& backend, Tensor to, const std::vector<float>& x) {
  if (to.dtype == DType::f32) backend.upload(to, x.data());
  else backend.upload(to, converted<bf16>(x).data());
}
inline std::vector<float> read_floats(Backend& backend, Tensor t) {
  std::vector<float> x(static_cast<size_t>(t.size()));
  std::vector<bf16> narrow(t.dtype == DType::bf16 ? x.size() : 0);
  if (narrow.empty()) backend.download(x.data(), t);
  else backend.download(narrow.data(), t), x = converted<float>(narrow);
  return x;
}

// Loads a program on a backend, with an arena of its own.
struct Loaded {
  Loaded(Backend& backend, const Model& model, const Program& program, const PlanOptions& plan,
         const std::vector<QuantSpec>& specs = {})
      : arena(backend, bytes(backend, model, program, plan, specs), "test"), stage(arena, backend, model, program, plan, specs) {
    stage.load(true);
  }
  static i64 bytes(Backend& backend, const Model& model, const Program& program, const PlanOptions& plan,
                   const std::vector<QuantSpec>& specs) {
    Arena measure;
    Stage(measure, backend, model, program, plan, specs);
    return measure.used();
  }
  // input: ids, or activations of whatever type those of the backend have.
  template <class T>
  std::vector<float> run(Backend& backend, const std::vector<T>& input) {
    if constexpr (std::is_same_v<T, i32>) backend.upload(stage.executor().input(), input.data());
    else write_floats(backend, stage.executor().input(), input);
    stage.executor().forward();
    return read_floats(backend, stage.executor().output());
  }
  Arena arena;
  Stage stage;
};

// Hidden states behind the first `blocks` blocks, for samples of `tokens` ids.
inline std::vector<float> hidden_states(Backend& backend, const Model& model, const std::vector<i32>& ids, i64 tokens,
                                        i64 blocks) {
  PlanOptions plan;
  plan.batch = static_cast<i64>(ids.size()) / tokens;
  plan.tokens = tokens;
  std::vector<float> x = Loaded(backend, model, model.family().embedding(model.config()), plan).run(backend, ids);
  for (i64 i = 0; i < blocks; ++i) x = Loaded(backend, model, model.family().block(model.config(), i), plan).run(backend, x);
  return x;
}

}  // namespace signround
