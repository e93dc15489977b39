#include "cli/commands.h"

#include "base/threads.h"

namespace signround {

static_assert(kThreadsFlag.most == kMaxThreads);

Precision precision_of(const Arguments& args) {
  return args.text("--precision") == "bf16" ? Precision::bf16 : Precision::f32;
}

void use_threads(const Arguments& args) {
  if (args.given("--threads")) set_thread_count(static_cast<int>(args.integer("--threads")));
}

}  // namespace signround
