#include "pipeline/block_work.h"

#include <algorithm>

namespace signround {
namespace {

// A block's weights step all at once if their gradients together take no more: steps of small weights are short, and many short
// ones keep a GPU waiting. Large ones fill it one by one, and no two gradients are there at a time.
constexpr i64 kMostKeptGrads = i64{64} << 20;  // bytes

PlanOptions plan_options(const Backend& backend, const Program& program, const std::vector<QuantSpec>& specs,
                         const TuneOptions& tune) {
  PlanOptions plan;
  plan.tuning = tune.steps > 0;
  plan.batch = plan.tuning ? tune.batch : 1;
  plan.tokens = plan.tuning ? tune.tokens : 1;
  // Of the gradient of one micro-batch only the sign counts, and rounding keeps it; sums over several need the bits.
  const bool summed = tune.accumulate > 1;
  plan.weight_grad = summed ? DType::f32 : backend.activation_type();
  i64 bytes = 0;
  for (size_t i = 0; i < specs.size(); ++i)
    if (specs[i].quantized()) bytes += program.weights[i].rows * program.weights[i].cols * bytes_of(plan.weight_grad);
  plan.keep_weight_grads = summed || bytes <= kMostKeptGrads;
  return plan;
}

}  // namespace

BlockWork::BlockWork(Arena& arena, Arena& snapshots, Backend& backend, const WeightSource& source, const Program& program,
                     const std::vector<QuantSpec>& specs, const TuneOptions& tune)
    : backend_(backend),
      tune_(tune),
      stage_(arena, backend, source, program, plan_options(backend, program, specs, tune), specs),
      quant_(BlockQuant::place(arena, snapshots, program, stage_.weights(), specs, tune.steps > 0, tune.search_bits)),
      state_(place_state(arena, tune)) {
  i64 weights = 0, groups = 0, scales = 0;
  bool two_levels = false, offset = false;
  quant_.each([&](size_t i) {
    const WeightRef& ref = program.weights[i];
    const i64 rows = ref.experts > 0 ? ref.rows / ref.experts : ref.rows;
    weights = std::max(weights, rows * ref.cols);
    groups = std::max(groups, rows * specs[i].groups(ref.cols));
    scales = std::max(scales, rows * specs[i].scales(ref.cols));
    two_levels |= specs[i].two_levels();
    offset |= specs[i].two_levels() && !specs[i].symmetric;
  });
  const Slot& output = program.slots[static_cast<size_t>(program.output)];
  if (tune.steps > 0 && tune.targets_ahead)
    ahead_ = arena.take(backend.activation_type(), {2 * tune.accumulate * tune.batch * tune.tokens, output.cols});
  const auto place_grid = [&](Arena& in) {
    grid_.codes = in.take(DType::u8, {weights});
    grid_.scale = in.take(DType::f16, {scales});
    grid_.zero = in.take(DType::u8, {groups});
    if (two_levels) grid_.factor = in.take(DType::i8, {groups});
    if (offset) grid_.offset = in.take(DType::f16, {scales});
  };
  Arena measure;
  place_grid(measure);
  Arena scratch(stage_.scratch(), plan().bytes);
  place_grid(measure.used() <= plan().bytes ? scratch : arena);
}

void BlockWork::run_original(const Chain& chain) const {
  quant_.forget_inputs(backend_);
  chain.run_original(executor(), [&] { quant_.add_inputs(backend_, executor()); });
}

TuneResult BlockWork::tune(Tensor inputs, Tensor targets, Sampler& sampler, const std::function<void(i64)>& issued) const {
  return tune_block(backend_, executor(), quant_, state_, inputs, targets, ahead_, sampler, tune_, issued);
}

QuantizedLinear BlockWork::codes_of(size_t weight, const std::string& name, i64 first, i64 rows) const {
  const QdqTensors q = quant_.tensors[weight].rows(first, rows);
  QuantizedLinear layer;
  layer.name = name;
  layer.rows = rows;
  layer.cols = q.w.cols();
  layer.spec = quant_.specs[weight];
  layer.weight_type = q.w.dtype;
  resize_grid(layer);
  GridTensors host = grid_tensors(layer), device = host;  // the sizes of this layer, the places on the device
  const std::pair<Tensor*, Tensor> places[] = {{&device.codes, grid_.codes}, {&device.scale, grid_.scale},
                                               {&device.zero, grid_.zero}, {&device.factor, grid_.factor},
                                               {&device.offset, grid_.offset}};
  for (const auto& [tensor, place] : places)
    if (*tensor) tensor->data = place.data;
  backend_.qdq_codes(device, q, layer.spec);
  const std::pair<Tensor, Tensor> copies[] = {{host.codes, device.codes}, {host.scale, device.scale}, {host.zero, device.zero},
                                              {host.factor, device.factor}, {host.offset, device.offset}};
  for (const auto& [to, from] : copies)
    if (to) backend_.download(to.data, from);
  return layer;
}

void BlockWork::each_layer(const std::function<void(QuantizedLinear)>& take) const {
  quant_.each([&](size_t i) {
    const WeightRef& ref = stage_.program().weights[i];
    const std::vector<std::string> names = stage_.program().layer_names(ref);
    const i64 rows = ref.rows / static_cast<i64>(names.size());
    for (size_t n = 0; n < names.size(); ++n) take(codes_of(i, names[n], static_cast<i64>(n) * rows, rows));
  });
}

double BlockWork::flops_per_step() const {
  const Plan& plan = stage_.plan();
  double flops = 0;
  for (size_t s = 0; s < stage_.program().steps.size(); ++s)
    flops += flops_forward(stage_.program(), stage_.program().steps[s], plan.options.batch, plan.options.tokens) +
             flops_backward(stage_.program(), plan, s);
  return flops * static_cast<double>(tune_.accumulate);
}

}  // namespace signround
