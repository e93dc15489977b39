#include "model/family.h"

namespace signround {

static constexpr Family kFamilies[] = {
    {"LlamaForCausalLM", llama_embedding, llama_block, llama_head, "model.layers"},
};

const Family& family_of(const Config& config) {
  std::string known;
  for (const Family& f : kFamilies) {
    if (config.architecture == f.architecture) return f;
    known += cat(known.empty() ? "" : ", ", f.architecture);
  }
  fail(ErrorKind::bad_input, "architecture \"", config.architecture, "\" is not supported; supported: ", known);
}

}  // namespace signround
