// The CPU backend for one instruction set. The Makefile compiles this file once for each, with its compiler flags and
// -DSIGNROUND_ISA=<name>, and links them plainest first: should the compiler emit a shared inline function out of line, the
// linker then keeps the copy that runs everywhere.
#include "ops/cpu/cpu_backend.h"

namespace signround::SIGNROUND_ISA {

std::unique_ptr<Backend> make_cpu_backend(Precision precision, std::string_view isa) {
  return std::make_unique<CpuBackend<float>>(precision, isa);
}

}  // namespace signround::SIGNROUND_ISA
