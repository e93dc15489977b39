// `signround bench`: what a tuning step of a block costs on this device, and where the time goes.
#include "pipeline/bench.h"

#include "cli/commands.h"
#include "cli/console.h"

namespace signround {
namespace {

constexpr Flag kFlags[] = {
    {.name = "--shape", .kind = FlagKind::choice,
     .value = "llama3-8b|qwen2.5-7b|llama3.2-1b|qwen2.5-0.5b|smollm2-135m|qwen3-30b-a3b",
     .fallback = "llama3-8b", .help = "whose block: its sizes, with random weights", .example = "--shape qwen2.5-0.5b"},
    {.name = "--bits", .kind = FlagKind::integer, .value = "2|3|4|8", .fallback = "4", .help = "bits of a weight",
     .example = "--bits 2", .least = 2, .most = 8},
    {.name = "--group-size", .kind = FlagKind::integer, .value = "32|64|128|-1", .fallback = "128",
     .help = "weights of a row that share a scale; -1: the whole row", .example = "--group-size 64", .least = -1, .most = 128},
    {.name = "--asym", .help = "a zero point for each group"},
    {.name = "--iters", .kind = FlagKind::integer, .value = "N", .fallback = "50", .help = "tuning steps, run twice",
     .example = "--iters 200", .least = 2, .most = 1 << 20},
    {.name = "--nsamples", .kind = FlagKind::integer, .value = "N", .fallback = "128", .help = "samples of random tokens",
     .example = "--nsamples 32", .least = 1, .most = 1 << 20},
    {.name = "--seqlen", .kind = FlagKind::integer, .value = "N", .fallback = "2048", .help = "tokens of a sample",
     .example = "--seqlen 512", .least = 2, .most = 1 << 20},
    {.name = "--batch-size", .kind = FlagKind::integer, .value = "N", .fallback = "8", .help = "samples of a step",
     .example = "--batch-size 4", .least = 1, .most = 1 << 16},
    kSeedFlag, kDeviceFlag, kPrecisionFlag, kThreadsFlag, kMemoryFlag, kNoGraphFlag, kJsonFlag,
};

Json json_of(const BenchOptions& options, const BenchReport& r) {
  Json groups = Json::array({});
  for (const BenchGroup& g : r.groups)
    groups.push(Json::object({{"name", g.name}, {"ms", g.seconds * 1e3}, {"floor_ms", g.floor * 1e3}}));
  return Json::object({{"shape", options.shape},
                       {"device", r.device},
                       {"bits", options.run.spec.bits},
                       {"group_size", options.run.spec.group},
                       {"ms_per_step", r.step_seconds * 1e3},
                       {"tflops", r.step_tflops},
                       {"peak_tflops", r.peak_tflops},
                       {"share_of_peak", r.step_tflops / r.peak_tflops},
                       {"copy_gigabytes_per_second", r.copy_rate},
                       {"chain_ms", r.chain_seconds * 1e3},
                       {"seconds_per_block_of_200_steps", r.block_seconds(200)},
                       {"weights", r.weights},
                       {"device_bytes", r.device_bytes},
                       {"planned_bytes", r.planned_bytes},
                       {"groups", groups}});
}

void print(const BenchOptions& options, const BenchReport& r) {
  const auto column = [](std::string text, size_t width) {
    return std::string(width - std::min(width, text.size()), ' ') + text;
  };
  const auto share = [](double part) { return fixed(100 * part, 0) + " %"; };
  put(cat(options.shape, " block, ", r.weights / 1000000, " M weights, on ", r.device, ": products reach ",
          fixed(r.peak_tflops, 1), " TFLOP/s, copies ", fixed(r.copy_rate, 0), " GB/s\n"));
  put(cat("  step     ", fixed(r.step_seconds * 1e3, 2), " ms, ", fixed(r.step_tflops, 1), " TFLOP/s, ",
          share(r.step_tflops / r.peak_tflops), " of the peak of products\n"));
  put(cat("  block    ", human_seconds(r.block_seconds(200)), " at 200 steps, of it ", human_seconds(r.chain_seconds),
          " to move the samples\n"));
  put(cat("  memory   ", human_bytes(r.device_bytes), " at the most\n\n"));
  put(cat("  ", std::string(26, ' '), column("ms", 10), column("floor", 10), column("reached", 9), "\n"));
  double sum = 0, floor = 0;
  const auto row = [&](const std::string& name, double seconds, double least) {
    put(cat("  ", name, std::string(26 - std::min<size_t>(26, name.size()), ' '), column(fixed(seconds * 1e3, 3), 10),
            column(fixed(least * 1e3, 3), 10), column(share(least / seconds), 9), "\n"));
  };
  for (const BenchGroup& g : r.groups) {
    row(g.name, g.seconds, g.floor);
    sum += g.seconds, floor += g.floor;
  }
  row("all, one by one", sum, floor);
  row("the step as it runs", r.step_seconds, floor);
}

void run(const Arguments& args) {
  use_threads(args);
  BenchOptions options;
  options.shape = args.text("--shape");
  QuantizeOptions& o = options.run;
  o.spec = {.bits = static_cast<int>(args.integer("--bits")), .group = args.integer("--group-size"),
            .symmetric = !args.toggle("--asym")};
  o.iters = args.integer("--iters");
  o.nsamples = args.integer("--nsamples");
  o.seqlen = args.integer("--seqlen");
  o.batch_size = args.integer("--batch-size");
  check(o.batch_size <= o.nsamples, ErrorKind::usage, "--batch-size ", o.batch_size, " is more than --nsamples ", o.nsamples);
  o.seed = args.integer("--seed");
  o.device = args.text("--device");
  o.precision = precision_of(args);
  o.memory = memory_of(args);
  o.graph = !args.toggle("--no-graph");
  const BenchReport report = bench(options);
  args.toggle("--json") ? put_json(json_of(options, report)) : print(options, report);
}

}  // namespace

const Command bench_command = {
    .name = "bench",
    .argument = "",
    .summary = "measures a tuning step on this device",
    .details =
        "A block of a known model's sizes with random weights is tuned; no model is needed. Beside each group of operations\n"
        "stands its floor: its arithmetic at the rate of a large matrix product, or its bytes at the rate of a large copy.",
    .example = "signround bench --shape smollm2-135m --nsamples 16 --seqlen 256 --iters 4",
    .flags = kFlags,
    .run = run,
};

}  // namespace signround
