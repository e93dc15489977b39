// The verbs, and the flags that several of them share. Each verb is one file, its table beside what it does.
#pragma once
#include "cli/options.h"
#include "pipeline/memory_plan.h"

namespace signround {

extern const Command quantize_command, eval_command, generate_command, inspect_command, plan_command;
extern const Command explain_command, tokenize_command, doctor_command, bench_command, verify_command, export_command;

inline constexpr const Command* kCommands[] = {&quantize_command, &eval_command,    &generate_command,
                                               &inspect_command,  &plan_command,    &explain_command,
                                               &tokenize_command, &doctor_command,  &bench_command,
                                               &verify_command,   &export_command};

inline constexpr Flag kDeviceFlag = {
    .name = "--device", .kind = FlagKind::text, .value = "NAME", .fallback = "auto",
    .help = "where to compute: auto, cpu, cuda, cuda:N", .example = "--device cpu"};
inline constexpr Flag kPrecisionFlag = {
    .name = "--precision",
    .kind = FlagKind::choice,
    .value = "auto|fp32|bf16|fp8",
    .fallback = "auto",
    .help = "of products' factors; auto: bf16 on a GPU, else fp32; fp8: bf16, e4m3 for large gradients (H100); sums are fp32",
    .example = "--precision bf16"};
inline constexpr Flag kThreadsFlag = {
    .name = "--threads", .kind = FlagKind::integer, .value = "N",
    .help = "processor threads, all if absent; results are the same", .example = "--threads 8", .least = 1, .most = 1024};
inline constexpr Flag kSeedFlag = {
    .name = "--seed", .kind = FlagKind::integer, .value = "N", .fallback = "42",
    .help = "of every random choice: same seed, same bytes", .example = "--seed 7", .least = 0, .most = 1e18};
inline constexpr Flag kMemoryFlag = {
    .name = "--memory", .kind = FlagKind::choice, .value = "least|balanced|most", .fallback = "balanced",
    .help = "how much of a GPU's memory to use; what does not go there lies in the host's", .example = "--memory least"};
inline constexpr Flag kNoGraphFlag = {
    .name = "--no-graph", .help = "launch every kernel by itself, for debugging, instead of replaying a recorded step"};
inline constexpr Flag kJsonFlag = {.name = "--json", .help = "the result as one JSON object on stdout"};
inline constexpr Flag kQuietFlag = {.name = "--quiet", .help = "no progress on stderr"};

std::optional<Precision> precision_of(const Arguments& args);  // of kPrecisionFlag; none if it was not given
Memory memory_of(const Arguments& args);                       // of kMemoryFlag
void use_threads(const Arguments& args);        // as kThreadsFlag says, if it was given

}  // namespace signround
