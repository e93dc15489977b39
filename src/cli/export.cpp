// `signround export`: another format from the same tuned integers.
#include "cli/commands.h"
#include "cli/console.h"
#include "cli/outputs.h"
#include "export/convert.h"

namespace signround {
namespace {

constexpr Flag kFlags[] = {
    {.name = "--output", .shortcut = "-o", .kind = FlagKind::text, .value = "OUT", .help = "directory to make",
     .example = "-o model-gptq", .required = true},
    {.name = "--format", .kind = FlagKind::text, .value = "NAME", .help = "as in signround help formats",
     .example = "--format gptq", .required = true},
    kShardSizeFlag,
    kThreadsFlag,
    {.name = "--force", .help = "replace OUT if it exists"},
    kJsonFlag,
};

void run(const Arguments& args) {
  use_threads(args);
  const ConvertReport report = convert({.input = args.argument,
                                        .output = args.text("--output"),
                                        .format = args.text("--format"),
                                        .force = args.toggle("--force"),
                                        .shard_bytes = shard_bytes_of(args)});
  if (args.toggle("--json"))
    return put_json(Json::object({{"output", report.output},
                                  {"format", args.text("--format")},
                                  {"layers", report.layers},
                                  {"output_bytes", report.bytes},
                                  {"loaders", loaders_json(report.loaders)}}));
  put(cat("wrote ", report.output, "\n  layers   ", report.layers, ", ", human_bytes(static_cast<i64>(report.bytes)), "\n"));
  put(loaders_text(report.loaders));
}

}  // namespace

const Command export_command = {
    .name = "export",
    .argument = "MODEL",
    .summary = "writes a quantized model in another format, from the same integers and without tuning",
    .details = "MODEL is what quantize wrote in a packed format. OUT is byte for byte what quantize would have written.",
    .example = "signround export model-w4 --format gptq -o model-w4-gptq",
    .flags = kFlags,
    .run = run,
};

}  // namespace signround
