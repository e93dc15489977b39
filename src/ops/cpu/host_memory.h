// The memory of this machine, as far as this process may have it.
#pragma once
#include <string_view>

#include "base/dtype.h"

namespace signround {

// The least of what the kernel says is available and what is left under every memory limit (cgroup) that holds for this process.
i64 free_host_bytes();
i64 total_host_bytes();

// Memory aligned to kAlignment that is really there: asked for beyond what is free it throws Error{out_of_memory} instead of
// having the process killed later. Contents are zero.
void* allocate_host(i64 bytes, std::string_view what);
void release_host(void* data) noexcept;

}  // namespace signround
