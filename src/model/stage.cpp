#include "model/stage.h"

#include "model/rope.h"

namespace signround {

Stage::Stage(Arena& arena, Backend& backend, const WeightSource& source, Program program, PlanOptions options,
             const std::vector<QuantSpec>& specs)
    : backend_(backend), source_(source), program_(std::move(program)) {
  options.activation = backend.activation_type();
  options.linear_scratch = [&backend](const Backend::LinearShape& shape) { return backend.linear_scratch(shape); };
  for (size_t i = 0; i < program_.weights.size(); ++i) {
    const WeightRef& ref = program_.weights[i];
    const DType type = source.weight_type(program_.prefix + ref.name);
    weights_.push_back(ref.cols > 0 ? arena.take(type, {ref.rows, ref.cols}) : arena.take(type, {ref.rows}));
    options.weight_types.push_back(type);
    options.trainable.push_back(!specs.empty() && specs[i].quantized());
  }
  for (const RopeTable& table : program_.rope_tables)
    rope_tables_.push_back(arena.take(DType::f32, {options.tokens, 2 * static_cast<i64>(table.inv_freq.size())}));
  plan_ = make_plan(program_, options);
  scratch_ = arena.take_bytes(plan_.bytes);
  if (scratch_) executor_ = std::make_unique<Executor>(backend_, program_, plan_, scratch_, weights_, rope_tables_);
}

void Stage::load(bool refuse_nonfinite) const {
  for (size_t i = 0; i < weights_.size(); ++i)
    backend_.upload(weights_[i], source_.read(program_.prefix + program_.weights[i].name, weights_[i], refuse_nonfinite).data());
  for (size_t i = 0; i < rope_tables_.size(); ++i)
    backend_.upload(rope_tables_[i], rope_angles(program_.rope_tables[i], plan_.options.tokens).data());
}

}  // namespace signround
