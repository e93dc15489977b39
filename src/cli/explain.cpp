// `signround explain`: the step table of a model's block.
#include "model/explain.h"

#include "cli/commands.h"
#include "cli/console.h"
#include "model/model.h"

namespace signround {
namespace {

constexpr Flag kFlags[] = {
    {.name = "--layer", .kind = FlagKind::integer, .value = "N", .fallback = "0", .help = "which block", .example = "--layer 3",
     .least = 0, .most = 1e6},
    {.name = "--seqlen", .kind = FlagKind::integer, .value = "N", .fallback = "2048", .help = "tokens of a sample",
     .example = "--seqlen 512", .least = 2, .most = 1 << 20},
    {.name = "--batch-size", .kind = FlagKind::integer, .value = "N", .fallback = "8",
     .help = "samples that a step computes at a time", .example = "--batch-size 4", .least = 1, .most = 1 << 16},
    kJsonFlag,
};

Json steps_json(const Program& program, const Plan& plan) {
  Json steps = Json::array({});
  for (size_t i = 0; i < program.steps.size(); ++i) {
    const Step& step = program.steps[i];
    Json inputs = Json::array({});
    for (const int slot : step.in)
      if (slot >= 0) inputs.push(program.slots[static_cast<size_t>(slot)].cols);
    steps.push(Json::object({{"name", step.name},
                             {"op", traits(step.op).name},
                             {"columns_in", inputs},
                             {"columns_out", program.slots[static_cast<size_t>(step.out[0])].cols},
                             {"flops_forward", flops_forward(program, step, plan.options.batch, plan.options.tokens)},
                             {"flops_backward", flops_backward(program, plan, i)},
                             {"backward", plan.steps[i].backward}}));
  }
  return steps;
}

void run(const Arguments& args) {
  const Model model(args.argument);
  const i64 layer = args.integer("--layer"), layers = model.config().layers;
  check(layer < layers, ErrorKind::usage, "--layer ", layer, ": ", args.argument, " has blocks 0 to ", layers - 1);
  const Program program = model.family().block(model.config(), layer);
  PlanOptions options;
  options.batch = args.integer("--batch-size");
  options.tokens = args.integer("--seqlen");
  options.tuning = true;
  for (const WeightRef& w : program.weights) {
    options.trainable.push_back(w.linear);
    options.weight_types.push_back(model.weight_type(program.prefix + w.name));
  }
  const Plan plan = make_plan(program, options);
  if (!args.toggle("--json")) return put(explain(program, plan));
  put_json(Json::object({{"architecture", model.config().architecture},
                         {"block", layer},
                         {"blocks", layers},
                         {"batch", options.batch},
                         {"tokens", options.tokens},
                         {"arena_bytes", plan.bytes},
                         {"steps", steps_json(program, plan)}}));
}

}  // namespace

const Command explain_command = {
    .name = "explain",
    .argument = "MODEL",
    .summary = "a block as the list of steps that quantize runs: shapes, memory, arithmetic, gradients",
    .details = "The table is derived, not written: forward runs it down, backward up. After it comes the map of the arena.",
    .example = "signround explain data/model --seqlen 256",
    .flags = kFlags,
    .run = run,
};

}  // namespace signround
