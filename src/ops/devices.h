// Which backends this build and this machine have.
#pragma once
#include <memory>
#include <optional>
#include <string>

#include "ops/ops.h"

namespace signround {

// device: "auto", "cpu", "cuda", "cuda:N". Throws Error{usage} for any other name, Error{bad_input} for a device that this
// build or this machine does not have. "auto" is the first GPU, or else the CPU. graph: a GPU records
// repeated work and replays it. No precision: bf16 on a GPU, f32 on a CPU.
std::unique_ptr<Backend> make_backend(const std::string& device, std::optional<Precision> precision, bool graph = true);

// Why there is no GPU to use, in this build or on this machine; empty if there is one. Wakes that one up.
std::string why_no_gpu(int device = 0);

// Defined in cuda/backend.cu. Weak: in a build without CUDA the linker leaves them null, and nothing else has to know.
[[gnu::weak]] std::unique_ptr<Backend> make_cuda_backend(int device, Precision precision, bool graph);
[[gnu::weak]] std::string cuda_absence(int device);  // empty if there is a GPU, its driver and cuBLAS

}  // namespace signround
