#include "model/family.h"

namespace signround {

static constexpr Family kFamilies[] = {
    {"LlamaForCausalLM", "llama", read_llama, llama_embedding, llama_block, llama_head, "model.layers"},
    {"MistralForCausalLM", "mistral", read_mistral, llama_embedding, llama_block, llama_head, "model.layers"},
    {"Qwen2ForCausalLM", "qwen2", read_qwen2, llama_embedding, llama_block, llama_head, "model.layers"},
    {"Qwen3ForCausalLM", "qwen3", read_qwen3, llama_embedding, llama_block, llama_head, "model.layers"},
    {"MixtralForCausalLM", "mixtral", read_mixtral, llama_embedding, mixtral_block, llama_head, "model.layers"},
    {"Qwen2MoeForCausalLM", "qwen2_moe", read_qwen2_moe, llama_embedding, qwen_moe_block, llama_head, "model.layers"},
    {"Qwen3MoeForCausalLM", "qwen3_moe", read_qwen3_moe, llama_embedding, qwen_moe_block, llama_head, "model.layers"},
    {"SmolLM3ForCausalLM", "smollm3", read_smollm3, llama_embedding, llama_block, llama_head, "model.layers"},
    {"Olmo2ForCausalLM", "olmo2", read_olmo2, llama_embedding, olmo2_block, llama_head, "model.layers"},
    {"GemmaForCausalLM", "gemma", read_gemma, llama_embedding, llama_block, llama_head, "model.layers"},
    {"Gemma2ForCausalLM", "gemma2", read_gemma2, llama_embedding, gemma2_block, llama_head, "model.layers"},
    {"Gemma3ForCausalLM", "gemma3_text", read_gemma3, llama_embedding, gemma2_block, llama_head, "model.layers"},
    {"Gemma3ForConditionalGeneration", "gemma3", read_gemma3_with_vision, llama_embedding, gemma2_block, llama_head,
     "model.language_model.layers"},
    {"PhiForCausalLM", "phi", read_phi, llama_embedding, phi_block, phi_head, "model.layers"},
    {"Phi3ForCausalLM", "phi3", read_phi3, llama_embedding, phi3_block, llama_head, "model.layers"},
    {"Starcoder2ForCausalLM", "starcoder2", read_starcoder2, llama_embedding, starcoder2_block, starcoder2_head, "model.layers"},
    {"GPTNeoXForCausalLM", "gpt_neox", read_gpt_neox, gpt_neox_embedding, gpt_neox_block, gpt_neox_head, "gpt_neox.layers"},
    {"OPTForCausalLM", "opt", read_opt, opt_embedding, opt_block, opt_head, "model.decoder.layers"},
    {"GPT2LMHeadModel", "gpt2", read_gpt2, gpt2_embedding, gpt2_block, gpt2_head, "transformer.h"},
    {"GPTJForCausalLM", "gptj", read_gptj, gptj_embedding, gptj_block, gptj_head, "transformer.h"},
    {"FalconForCausalLM", "falcon", read_falcon, falcon_embedding, falcon_block, falcon_head, "transformer.h"},
    {"BloomForCausalLM", "bloom", read_bloom, bloom_embedding, bloom_block, bloom_head, "transformer.h"},
    {"BaichuanForCausalLM", "baichuan", read_baichuan, llama_embedding, baichuan_block, baichuan_head, "model.layers"},
    {"BaiChuanForCausalLM", "baichuan", read_baichuan, llama_embedding, baichuan_block, baichuan_head, "model.layers"},
};

std::string class_of(const std::string& model_type) {
  for (const Family& f : kFamilies)
    if (model_type == f.model_type) return f.architecture;
  return {};
}

const Family& family_of(const Config& config) {
  std::string known;
  for (const Family& f : kFamilies) {
    if (config.architecture == f.architecture) return f;
    known += cat(known.empty() ? "" : ", ", f.architecture);
  }
  fail(ErrorKind::bad_input, "architecture \"", config.architecture, "\" is not supported; supported: ", known);
}

}  // namespace signround
