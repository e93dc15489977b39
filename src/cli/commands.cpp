#include "cli/commands.h"

#include "base/threads.h"

namespace signround {

static_assert(kThreadsFlag.most == kMaxThreads);

std::optional<Precision> precision_of(const Arguments& args) {
  const std::string name = args.text("--precision");
  if (name == "auto") return std::nullopt;
  return name == "fp8" ? Precision::fp8 : name == "bf16" ? Precision::bf16 : Precision::f32;
}

Memory memory_of(const Arguments& args) {
  const std::string name = args.text("--memory");
  return name == "least" ? Memory::least : name == "most" ? Memory::most : Memory::balanced;
}

void use_threads(const Arguments& args) {
  if (args.given("--threads")) set_thread_count(static_cast<int>(args.integer("--threads")));
}

}  // namespace signround
