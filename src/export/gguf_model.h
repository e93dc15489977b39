// One file that llama.cpp runs, OUT/model.gguf: packed layers as they were tuned, norms and biases F32, all other weights F16.
#pragma once
#include "export/model_writer.h"

namespace signround {

inline constexpr const char* kGgufFile = "model.gguf";

std::unique_ptr<ModelWriter> make_gguf_model(const OutputRequest& request);

}  // namespace signround
