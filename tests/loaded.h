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
  std::vector<float> run(Backend& backend, const void* input) {
    backend.upload(stage.executor().input(), input);
    stage.executor().forward();
    std::vector<float> out(static_cast<size_t>(stage.executor().output().size()));
    backend.download(out.data(), stage.executor().output());
    return out;
  }
  Arena arena;
  Stage stage;
};

}  // namespace signround
