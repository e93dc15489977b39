// `signround quantize`: the flags, the recipes, and what is said about a run.
#include "cli/quantize.h"

#include <algorithm>
#include <iterator>

#include "cli/commands.h"
#include "cli/console.h"
#include "cli/outputs.h"
#include "cli/progress.h"
#include "export/gguf.h"
#include "ops/devices.h"
#include "pipeline/bench.h"
#include "quant/scheme.h"

namespace signround {
namespace {

constexpr double kMany = 1 << 24;  // steps, samples: more is a slip of the finger

constexpr Flag kFlags[] = {
    {.name = "--output", .shortcut = "-o", .kind = FlagKind::text, .value = "OUT", .help = "directory to make",
     .example = "-o model-w4", .required = true},
    {.name = "--scheme", .kind = FlagKind::text, .value = "NAME", .fallback = "W4A16",
     .help = "bits and group size: W<bits>A16, then G<group> unless that is 128", .example = "--scheme W2A16G64"},
    {.name = "--bits", .kind = FlagKind::integer, .value = "N",
     .help = "bits of a weight, in place of the scheme's; most formats have 2, 3, 4 and 8, some more",
     .example = "--bits 3", .least = 2, .most = 8},
    {.name = "--group-size", .kind = FlagKind::integer, .value = "32|64|128|-1",
     .help = "weights of a row that share a scale, in place of the scheme's; -1: the whole row", .example = "--group-size 32",
     .least = -1, .most = 128},
    {.name = "--asym", .help = "a zero point for each group; the default is symmetric"},
    {.name = "--sym", .help = "no zero points"},
    {.name = "--format", .kind = FlagKind::words, .value = "LIST", .fallback = "auto_round",
     .help = "what to write, as in signround help formats; several separated by commas make a folder each",
     .example = "--format auto_round,awq"},
    {.name = "--recipe", .kind = FlagKind::choice, .value = "light|default|best", .fallback = "default",
     .help = "a set of tuning options; those given beside it win", .example = "--recipe light"},
    {.name = "--iters", .kind = FlagKind::integer, .value = "N", .fallback = "200",
     .help = "tuning steps for each block; 0 rounds to nearest; light: 50, best: 1000", .example = "--iters 100", .least = 0,
     .most = kMany},
    {.name = "--lr", .kind = FlagKind::real, .value = "X",
     .help = "first step size of the rounding offsets, falls to 0; if absent 1/iters; light: 0.005", .example = "--lr 0.005",
     .least = 1e-12, .most = 1e3},
    {.name = "--minmax-lr", .kind = FlagKind::real, .value = "X",
     .help = "the same for the ranges of the groups; if absent as --lr", .example = "--minmax-lr 0.002",
     .least = 1e-12, .most = 1e3},
    {.name = "--search-ranges", .kind = FlagKind::choice, .value = "auto|on|off", .fallback = "auto",
     .help = "start each group from the range with the least error in the output, not the whole; auto: at 2 bits",
     .example = "--search-ranges off"},
    {.name = "--nsamples", .kind = FlagKind::integer, .value = "N", .fallback = "128",
     .help = "calibration samples; best: 512", .example = "--nsamples 64", .least = 1, .most = kMany},
    {.name = "--seqlen", .kind = FlagKind::integer, .value = "N", .fallback = "2048", .help = "tokens of a sample",
     .example = "--seqlen 512", .least = 2, .most = 1 << 20},
    {.name = "--batch-size", .kind = FlagKind::integer, .value = "N", .fallback = "8",
     .help = "samples that a step computes at a time", .example = "--batch-size 4", .least = 1, .most = 1 << 16},
    {.name = "--gradient-accumulate-steps", .kind = FlagKind::integer, .value = "N", .fallback = "1",
     .help = "batches summed up for one step", .example = "--gradient-accumulate-steps 4", .least = 1, .most = 1 << 16},
    {.name = "--dataset", .kind = FlagKind::text, .value = "FILE", .fallback = "builtin",
     .help = "calibration text: .txt, .jsonl with \"text\", or builtin", .example = "--dataset c4.txt"},
    {.name = "--ids", .kind = FlagKind::text, .value = "FILE", .help = "token ids instead of a text, separated by white space",
     .example = "--ids calibration.ids"},
    kSeedFlag,
    {.name = "--ppl", .kind = FlagKind::text, .value = "FILE",
     .help = "text to score before and after, in windows of --seqlen; the model card says what came out",
     .example = "--ppl data/heldout.txt"},
    {.name = "--ignore-layers", .kind = FlagKind::words, .value = "LIST",
     .help = "linear layers to leave as they are: names or parts of names, separated by commas",
     .example = "--ignore-layers down_proj"},
    {.name = "--layer-config", .kind = FlagKind::text, .value = "FILE",
     .help = "JSON with bits, group_size and sym of layers by name, part of a name or regular expression; 16: left alone",
     .example = "--layer-config layers.json"},
    kDeviceFlag, kPrecisionFlag, kThreadsFlag,
    kMemoryFlag, kNoGraphFlag,
    kShardSizeFlag,
    {.name = "--force", .help = "replace OUT if it exists"},
    kJsonFlag, kQuietFlag,
};

struct Recipe {
  std::string_view name;
  i64 iters, nsamples;
  double lr;            // 0: 1/iters
  double low_bits_lr;   // at 3 bits and fewer, times 1/iters
};
constexpr Recipe kRecipes[] = {{"light", 50, 128, 0.005, 0}, {"default", 200, 128, 0, 0}, {"best", 1000, 512, 0, 2}};

template <class List>
Json list_json(const List& list) {
  Json json = Json::array({});
  for (const auto& element : list) json.push(element);
  return json;
}

Json block_json(const BlockReport& b) {
  return Json::object({{"name", b.name},
                       {"first_loss", b.first_loss},
                       {"best_loss", b.best_loss},
                       {"best_step", b.best_step},
                       {"seconds", b.seconds},
                       {"tflops", b.tflops},
                       {"peak_bytes", b.peak_bytes},
                       {"idle_experts", list_json(b.idle_experts)}});
}

void print(const QuantizeOptions& options, const QuantizeReport& report) {
  for (size_t i = 0; i < report.outputs.size(); ++i)
    put(cat("wrote ", report.outputs[i], "\n", loaders_text(report.loaders[i])));
  const std::string how = options.iters > 0 ? cat(options.iters, " steps a block") : "rounded to nearest";
  put(cat("  scheme   ", text_of(options.spec), ", ", how, "\n"));
  if (report.grids.size() > 1)
    for (const auto& [grid, layers] : report.grids)
      put(cat("           ", grid, ": ", layers, layers == 1 ? " layer\n" : " layers\n"));
  put(cat("  weights  ", report.quantized_weights, " quantized, ", report.skipped.size(), " layers left as they were\n"));
  for (const std::string& line : report.fallbacks) put(cat("           ", line, "\n"));
  for (const std::string& layer : report.skipped) put(cat("           ", layer, "\n"));
  std::string idle;
  for (const BlockReport& block : report.blocks)
    for (const std::string& expert : block.idle_experts) idle += cat("           ", expert, "\n");
  if (!idle.empty()) put(cat("  experts  that no token of the calibration met, rounded to nearest:\n", idle));
  if (const std::optional<Perplexities>& p = report.perplexity)
    put(cat("  perplexity ", fixed(p->before, 4), " -> ", fixed(p->after, 4), " (tokens ", p->tokens, ")\n"));
  put(cat("  size     ", human_bytes(report.input_bytes), " -> ", human_bytes(report.output_bytes), "\n"));
  put(cat("  time     ", human_seconds(report.seconds), " on ", report.device, "\n"));
}

void print_json(const QuantizeOptions& options, const QuantizeReport& report) {
  Json blocks = Json::array({}), loaders = Json::array({}), grids = Json::object({});
  for (const auto& [grid, layers] : report.grids) grids.set(grid, layers);
  for (const std::vector<Verdict>& verdicts : report.loaders) loaders.push(loaders_json(verdicts));
  for (const BlockReport& block : report.blocks) blocks.push(block_json(block));
  put_json(Json::object({{"outputs", list_json(report.outputs)},
                         {"loaders", loaders},
                         {"bits", options.spec.bits},
                         {"group_size", options.spec.group},
                         {"sym", options.spec.symmetric},
                         {"grids", grids},
                         {"iters", options.iters},
                         {"quantized_weights", report.quantized_weights},
                         {"input_bytes", report.input_bytes},
                         {"output_bytes", report.output_bytes},
                         {"perplexity", to_json(report.perplexity)},
                         {"seconds", report.seconds},
                         {"seconds_to_first_step", report.seconds_to_first_step},
                         {"device", report.device},
                         {"skipped", list_json(report.skipped)},
                         {"fallbacks", list_json(report.fallbacks)},
                         {"blocks", blocks}}));
}

// The grid that a format brings along, if one does.
std::optional<QuantSpec> grid_of_formats(const Arguments& args, const std::vector<std::string>& formats) {
  std::optional<QuantSpec> grid;
  for (const std::string& format : formats) {
    const std::optional<QuantSpec> own = gguf_grid(format);
    if (!own) continue;
    for (const std::string_view flag : {"--scheme", "--bits", "--group-size", "--asym", "--sym"})
      check(!args.given(flag), ErrorKind::usage, "format ", format, " has a grid of its own, ", text_of(*own),
            ": leave ", flag, " away");
    check(!grid || *grid == *own, ErrorKind::usage, "format ", format, " wants another grid than a format before it: ",
          "a run tunes one; quantize once for each");
    grid = own;
  }
  return grid;
}

void run(const Arguments& args) {
  const QuantizeOptions options = quantize_options(args);
  use_threads(args);
  const std::atomic<bool>& cancelled = watch_signals();  // before anything that takes time
  Progress progress(Progress::style_of(args.toggle("--quiet")));
  const bool compares = progress.style() == Progress::Style::lines && options.iters > 0;
  const double peak = compares ? matmul_tflops(*make_backend(options.device, options.precision)) : 0;
  QuantizeObserver observer;
  std::string last_loss;
  observer.stage = [&](const std::string& stage) { progress.line(stage); };
  observer.step = [&](i64 block, i64 blocks, i64 step, i64 steps) {
    const double part = steps > 0 ? static_cast<double>(step) / static_cast<double>(steps) : 0;
    progress.show((static_cast<double>(block) + part) / static_cast<double>(blocks),
                  cat("block ", block + 1, "/", blocks, " step ", step, "/", steps, last_loss));
  };
  observer.block = [&](const BlockReport& block) {
    last_loss = cat("  loss ", general(block.first_loss, 3), " -> ", general(block.best_loss, 3));
    if (progress.style() == Progress::Style::lines) progress.line(block_line(block, peak));
  };
  observer.cancel = &cancelled;
  const QuantizeReport report = quantize(options, observer);
  progress.clear();
  args.toggle("--json") ? print_json(options, report) : print(options, report);
}

}  // namespace

const std::span<const Flag> kQuantizeFlags = kFlags;

// The command with what decides the bytes of an output: neither where it goes, nor how many threads make it.
std::string reproducible(const Arguments& args) {
  constexpr std::string_view kWithout[] = {"--output", "--format", "--threads", "--force", "--json", "--quiet", "--report"};
  std::string text = cat("signround quantize ", args.argument, " -o OUT");
  for (const Flag& flag : kQuantizeFlags)
    if (args.given(flag.name) && std::find(std::begin(kWithout), std::end(kWithout), flag.name) == std::end(kWithout))
      text += cat(" ", flag.name, flag.kind == FlagKind::toggle ? "" : " ", args.typed(flag.name));
  return text;
}

QuantizeOptions quantize_options(const Arguments& args) {
  check(!args.toggle("--asym") || !args.toggle("--sym"), ErrorKind::usage, "--asym and --sym exclude each other");
  check(!args.given("--dataset") || !args.given("--ids"), ErrorKind::usage, "--dataset and --ids exclude each other");
  const auto integer = [&](std::string_view name) { return args.given(name) ? std::optional(args.integer(name)) : std::nullopt; };
  const auto real = [&](std::string_view name) { return args.given(name) ? std::optional(args.real(name)) : std::nullopt; };
  const Recipe& recipe = *std::find_if(std::begin(kRecipes), std::end(kRecipes),
                                       [&](const Recipe& r) { return r.name == args.text("--recipe"); });
  std::optional<bool> symmetric;
  if (args.toggle("--asym") || args.toggle("--sym")) symmetric = args.toggle("--sym");

  QuantizeOptions o;
  o.model = args.argument;
  o.output = args.text("--output");
  o.spec = merge_scheme(args.text("--scheme"), integer("--bits"), integer("--group-size"), symmetric);
  o.formats = args.words("--format");
  if (const std::optional<QuantSpec> grid = grid_of_formats(args, o.formats)) o.spec = *grid;
  o.iters = integer("--iters").value_or(recipe.iters);
  o.lr = real("--lr");
  if (!o.lr && recipe.lr > 0) o.lr = recipe.lr;
  const bool low_bits = recipe.low_bits_lr > 0 && o.spec.bits <= 3 && o.iters > 0;
  if (!o.lr && low_bits) o.lr = recipe.low_bits_lr / static_cast<double>(o.iters);
  o.minmax_lr = real("--minmax-lr");
  const std::string search = args.text("--search-ranges");
  if (search != "auto") o.search_bits = search == "on" ? 8 : 0;
  o.nsamples = integer("--nsamples").value_or(recipe.nsamples);
  o.seqlen = args.integer("--seqlen");
  o.batch_size = args.integer("--batch-size");
  o.accumulate = args.integer("--gradient-accumulate-steps");
  o.dataset = args.text("--dataset");
  o.ids = args.text("--ids");
  o.seed = args.integer("--seed");
  o.ppl = args.text("--ppl");
  o.ignore_layers = args.words("--ignore-layers");
  o.layer_config = args.text("--layer-config");
  o.device = args.text("--device");
  o.precision = precision_of(args);
  o.memory = memory_of(args);
  o.graph = !args.toggle("--no-graph");
  o.force = args.toggle("--force");
  o.shard_bytes = shard_bytes_of(args);
  o.command = reproducible(args);
  return o;
}

const Command quantize_command = {
    .name = "quantize",
    .argument = "MODEL",
    .summary = "tunes a model's rounding and writes it quantized",
    .details = "MODEL is a Hugging Face directory. OUT is written as OUT.partial and renamed when it is complete; what exists\n"
               "is replaced with --force only. Underscores do as well as dashes, --option=value as well as --option value.",
    .example = "signround quantize data/model -o model-w2 --scheme W2A16G64 --seqlen 256",
    .flags = kFlags,
    .run = run,
};

}  // namespace signround
