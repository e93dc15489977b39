// Which backends this build and this machine have.
#pragma once
#include <memory>
#include <string>

#include "ops/ops.h"

namespace signround {

// device: "auto", "cpu", "cuda", "cuda:N". Throws Error{usage} for any other name, Error{bad_input} for a device that this build or
// this machine does not have. "auto" is the first GPU, or else the CPU.
std::unique_ptr<Backend> make_backend(const std::string& device, Precision precision);

}  // namespace signround
