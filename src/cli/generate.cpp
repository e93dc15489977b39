// `signround generate`: streams text from a model.
#include "eval/generate.h"

#include "cli/commands.h"
#include "cli/console.h"

namespace signround {
namespace {

constexpr Flag kFlags[] = {
    {.name = "--prompt", .shortcut = "-p", .kind = FlagKind::text, .value = "TEXT", .help = "text to continue",
     .example = "--prompt \"Once upon a time\"", .required = true},
    {.name = "--tokens", .shortcut = "-n", .kind = FlagKind::integer, .value = "N", .fallback = "64",
     .help = "at most so many new tokens", .example = "-n 200", .least = 1, .most = 1 << 20},
    {.name = "--temperature", .kind = FlagKind::real, .value = "X", .fallback = "0", .help = "0: the likeliest token each time",
     .example = "--temperature 0.8", .least = 0, .most = 100},
    {.name = "--top-p", .kind = FlagKind::real, .value = "X", .fallback = "1",
     .help = "draw only from the likeliest tokens that together have this probability", .example = "--top-p 0.9",
     .least = 0, .most = 1},
    kSeedFlag, kDeviceFlag, kPrecisionFlag, kThreadsFlag, kJsonFlag,
};

void run(const Arguments& args) {
  use_threads(args);
  GenerateOptions options;
  options.model = args.argument;
  options.prompt = args.text("--prompt");
  options.tokens = args.integer("--tokens");
  options.temperature = args.real("--temperature");
  options.top_p = args.real("--top-p");
  options.seed = args.integer("--seed");
  options.device = args.text("--device");
  options.precision = precision_of(args);
  const bool json = args.toggle("--json");
  watch_signals();
  std::string all;
  if (!json) put(options.prompt);
  const i64 tokens = generate(options, [&](std::string_view text) {
    stop_if_cancelled();
    all += text;
    if (json) return;
    put(text);
    flush_output();
  });
  if (!json) return put("\n");
  put_json(Json::object({{"prompt", options.prompt}, {"text", all}, {"tokens", tokens}}));
}

}  // namespace

const Command generate_command = {
    .name = "generate",
    .argument = "MODEL",
    .summary = "continues a prompt, token by token",
    .details = "Prints the prompt and its continuation; stops at the end-of-text token or after --tokens.",
    .example = "signround generate OUT --prompt \"Once upon a time\" -n 100",
    .flags = kFlags,
    .run = run,
};

}  // namespace signround
