// Who can load an output, and the rule that decides: one table.
#pragma once
#include "export/export.h"

namespace signround {

struct Verdict {
  std::string engine;  // "vLLM"
  bool loads;
  std::string rule;  // what is needed, or what stands in the way
};

// Of vLLM, SGLang, transformers, llama.cpp and TensorRT-LLM, in this order. layers: all linear layers of the blocks.
std::vector<Verdict> who_loads(const std::string& format, std::vector<PlannedLayer> layers);

}  // namespace signround
