// `signround plan`: what `quantize` would need, with the same flags.
#include "cli/commands.h"
#include "cli/console.h"
#include "cli/outputs.h"
#include "cli/quantize.h"
#include "ops/devices.h"
#include "pipeline/bench.h"

namespace signround {
namespace {

void run(const Arguments& args) {
  use_threads(args);
  const QuantizeOptions options = quantize_options(args);
  const RunPlan plan = plan_run(options);
  const double rate = plan.flops > 0 ? matmul_tflops(*make_backend(options.device, options.precision)) * 1e12 : 0;
  const double seconds = plan.flops > 0 ? plan.flops / rate : 0;
  const i64 device = plan.memory.device_bytes(), needed = device + plan.backend_bytes;
  const bool fits = device <= plan.free_bytes;
  if (args.toggle("--json"))
    return put_json(Json::object({{"device", plan.device},
                                  {"device_bytes", needed},
                                  {"device_bytes_free", plan.free_bytes},
                                  {"host_bytes", plan.memory.host_bytes()},
                                  {"disk_bytes_at_most", plan.input_bytes},
                                  {"blocks", plan.blocks},
                                  {"operations", plan.flops},
                                  {"least_seconds", seconds},
                                  {"fallbacks", list_json(plan.fallbacks)},
                                  {"fits", fits}}));
  put(cat("device  ", plan.device, ": ", human_bytes(needed), " of ", human_bytes(plan.free_bytes), " free: ",
          fits ? "fits" : "does not fit; lower --nsamples, --seqlen or --batch-size, or give --memory least", "\n"));
  put(cat("host    ", human_bytes(plan.memory.host_bytes()), " pinned for what does not lie on the device\n"));
  put(cat("disk    ", human_bytes(plan.input_bytes), " at the most\n"));
  for (const std::string& line : plan.fallbacks) put(cat("grid    ", line, "\n"));
  if (plan.flops > 0)
    put(cat("time    ", human_seconds(seconds), " at the least for ", plan.blocks, " blocks: ", general(plan.flops, 3),
            " operations at the rate of a large matrix product\n"));
}

}  // namespace

const Command plan_command = {
    .name = "plan",
    .argument = "MODEL",
    .summary = "what quantize would need with the same flags; writes nothing",
    .details = "Memory of the device and of the host, room on the disk, the least time, and whether it fits.",
    .example = "signround plan data/model -o model-w2 --scheme W2A16G64",
    .flags = kQuantizeFlags,
    .run = run,
};

}  // namespace signround
