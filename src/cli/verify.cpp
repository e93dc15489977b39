// `signround verify`: whether an output is still what was tuned.
#include "export/verify.h"

#include "cli/commands.h"
#include "cli/console.h"

namespace signround {
namespace {

constexpr Flag kFlags[] = {kThreadsFlag, kJsonFlag};

void run(const Arguments& args) {
  use_threads(args);
  const VerifyReport report = verify(args.argument);
  if (args.toggle("--json"))
    return put_json(Json::object({{"ok", true},
                                  {"format", report.format},
                                  {"layers", report.layers},
                                  {"tensors", report.tensors},
                                  {"files", report.files}}));
  put(cat(args.argument, ": ", report.format, ", ", report.layers, " layers on the tuned grid, ", report.tensors, " tensors and ",
          report.files, " files as they were written\n"));
}

}  // namespace

const Command verify_command = {
    .name = "verify",
    .argument = "OUT",
    .summary = "decodes what quantize wrote and compares it with what was tuned; exit 7 if anything is off",
    .details = "The grid of every packed layer, the bytes of every tensor and file, NaN and infinity, the configuration against\n"
               "the tensors, zero-point conventions, files that are missing. The first thing that is off is named.",
    .example = "signround verify model-w2",
    .flags = kFlags,
    .run = run,
};

}  // namespace signround
