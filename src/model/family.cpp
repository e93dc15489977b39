#include "model/family.h"

namespace signround {

static constexpr Family kFamilies[] = {
    {"LlamaForCausalLM", read_llama, llama_embedding, llama_block, llama_head, "model.layers"},
    {"MistralForCausalLM", read_mistral, llama_embedding, llama_block, llama_head, "model.layers"},
    {"Qwen2ForCausalLM", read_qwen2, llama_embedding, llama_block, llama_head, "model.layers"},
    {"Qwen3ForCausalLM", read_qwen3, llama_embedding, llama_block, llama_head, "model.layers"},
    {"SmolLM3ForCausalLM", read_smollm3, llama_embedding, llama_block, llama_head, "model.layers"},
    {"Olmo2ForCausalLM", read_olmo2, llama_embedding, olmo2_block, llama_head, "model.layers"},
    {"GemmaForCausalLM", read_gemma, llama_embedding, llama_block, llama_head, "model.layers"},
    {"Gemma2ForCausalLM", read_gemma2, llama_embedding, gemma2_block, llama_head, "model.layers"},
    {"Gemma3ForCausalLM", read_gemma3, llama_embedding, gemma2_block, llama_head, "model.layers"},
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
