// `signround eval`: perplexity of a model, as it is or as quantize wrote it.
#include "eval/perplexity.h"

#include "cli/commands.h"
#include "cli/console.h"
#include "cli/progress.h"

namespace signround {
namespace {

constexpr Flag kFlags[] = {
    {.name = "--ppl", .kind = FlagKind::text, .value = "FILE", .help = "text to score",
     .example = "--ppl data/heldout.txt"},
    {.name = "--ids", .kind = FlagKind::text, .value = "FILE",
     .help = "token ids to score instead of a text, separated by white space", .example = "--ids heldout.ids"},
    {.name = "--seqlen", .kind = FlagKind::integer, .value = "N", .fallback = "2048", .help = "tokens in a window",
     .example = "--seqlen 512", .least = 2, .most = 1 << 20},
    {.name = "--windows", .kind = FlagKind::integer, .value = "N", .fallback = "0",
     .help = "only the first so many windows; 0: all", .example = "--windows 40", .least = 0, .most = 1e18},
    {.name = "--batch-size", .kind = FlagKind::integer, .value = "N", .fallback = "1", .help = "windows at a time",
     .example = "--batch-size 4", .least = 1, .most = 1 << 16},
    kDeviceFlag, kPrecisionFlag, kThreadsFlag, kJsonFlag, kQuietFlag,
};

void run(const Arguments& args) {
  check(args.given("--ppl") != args.given("--ids"), ErrorKind::usage, "eval needs a text, --ppl FILE, or token ids, --ids FILE");
  use_threads(args);
  PerplexityOptions options;
  options.model = args.argument;
  options.text = args.text("--ppl");
  options.ids = args.text("--ids");
  options.seqlen = args.integer("--seqlen");
  options.windows = args.integer("--windows");
  options.batch_size = args.integer("--batch-size");
  options.device = args.text("--device");
  options.precision = precision_of(args);
  Progress progress(Progress::style_of(args.toggle("--quiet")));
  watch_signals();
  const PerplexityReport report = perplexity(options, [&](i64 done, i64 all) {
    stop_if_cancelled();
    progress.show(static_cast<double>(done) / static_cast<double>(all), "scoring");
  });
  progress.clear();
  if (!args.toggle("--json")) return put(cat("perplexity ", fixed(report.perplexity, 4), " (tokens ", report.tokens, ")\n"));
  put_json(Json::object({{"perplexity", report.perplexity},
                         {"tokens", report.tokens},
                         {"nll", report.nll},
                         {"windows", report.windows},
                         {"seqlen", options.seqlen},
                         {"seconds", report.seconds}}));
}

}  // namespace

const Command eval_command = {
    .name = "eval",
    .argument = "MODEL",
    .summary = "perplexity of a model, original or quantized, on a text",
    .details = "The tokens of the file are cut into windows of --seqlen without overlap, each scored from its second token on.\n"
               "What remains at the end is dropped. Prints: perplexity X (tokens N).",
    .example = "signround eval OUT --ppl data/heldout.txt --seqlen 512",
    .flags = kFlags,
    .run = run,
};

}  // namespace signround
