// The verbs, and the flags that several of them share. Each verb is one file, its table beside what it does.
#pragma once
#include "cli/options.h"
#include "ops/ops.h"

namespace signround {

extern const Command quantize_command, eval_command, generate_command, inspect_command;
extern const Command explain_command, tokenize_command, doctor_command;

inline constexpr const Command* kCommands[] = {&quantize_command, &eval_command,    &generate_command, &inspect_command,
                                               &explain_command,  &tokenize_command, &doctor_command};

inline constexpr Flag kDeviceFlag = {
    .name = "--device", .kind = FlagKind::text, .value = "NAME", .fallback = "auto",
    .help = "where to compute: auto, cpu, cuda, cuda:N", .example = "--device cpu"};
inline constexpr Flag kPrecisionFlag = {
    .name = "--precision", .kind = FlagKind::choice, .value = "fp32|bf16", .fallback = "fp32",
    .help = "of the factors of matrix products; sums are always fp32", .example = "--precision bf16"};
inline constexpr Flag kThreadsFlag = {
    .name = "--threads", .kind = FlagKind::integer, .value = "N",
    .help = "processor threads, all if absent; results are the same", .example = "--threads 8", .least = 1, .most = 1024};
inline constexpr Flag kSeedFlag = {
    .name = "--seed", .kind = FlagKind::integer, .value = "N", .fallback = "42",
    .help = "of every random choice: same seed, same bytes", .example = "--seed 7", .least = 0, .most = 1e18};
inline constexpr Flag kJsonFlag = {.name = "--json", .help = "the result as one JSON object on stdout"};
inline constexpr Flag kQuietFlag = {.name = "--quiet", .help = "no progress on stderr"};

Precision precision_of(const Arguments& args);  // of kPrecisionFlag
void use_threads(const Arguments& args);        // as kThreadsFlag says, if it was given

}  // namespace signround
