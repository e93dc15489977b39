// Which build of the CPU kernels runs here.
#pragma once
#include <memory>
#include <string_view>
#include <vector>

#include "ops/ops.h"

namespace signround {

// Instruction sets that this program has kernels for and this processor runs, plainest first: "baseline", "avx2", "avx512", ...
std::vector<std::string_view> supported_isas();

// The CPU backend with the kernels for `isa`; if that is empty, for the environment's SIGNROUND_ISA; if that is unset, for the
// best that this processor runs. Throws Error{usage} for a name that is not in supported_isas().
std::unique_ptr<Backend> make_cpu_backend(Precision precision, std::string_view isa = {});

}  // namespace signround
