// A family of models is a reader of its config.json and three short functions that write Programs, one file in arch/. One line
// in family.cpp registers it.
#pragma once
#include "model/config.h"

namespace signround {

struct Family {
  const char* architecture;             // as config.json names it
  const char* model_type;               // so too
  void (*read)(Config&, const Json&);   // throws Error{bad_input} naming what it does not support
  Program (*embedding)(const Config&);  // ids -> hidden states
  Program (*block)(const Config&, i64 layer);
  Program (*head)(const Config&);  // hidden states -> logits
  const char* block_prefix;        // "model.layers"
};

// The architecture with a head; empty: none is known.
std::string class_of(const std::string& model_type);

// Throws Error{bad_input} that names the architecture and those that are known.
const Family& family_of(const Config& config);

void read_llama(Config& c, const Json& json);
void read_mistral(Config& c, const Json& json);
void read_qwen2(Config& c, const Json& json);
void read_qwen3(Config& c, const Json& json);
void read_smollm3(Config& c, const Json& json);
Program llama_embedding(const Config& c);
Program llama_block(const Config& c, i64 layer);
Program llama_head(const Config& c);

void read_mixtral(Config& c, const Json& json);
void read_qwen2_moe(Config& c, const Json& json);
void read_qwen3_moe(Config& c, const Json& json);
Program mixtral_block(const Config& c, i64 layer);
Program qwen_moe_block(const Config& c, i64 layer);

void read_olmo2(Config& c, const Json& json);
Program olmo2_block(const Config& c, i64 layer);

void read_gemma(Config& c, const Json& json);
void read_gemma2(Config& c, const Json& json);
void read_gemma3(Config& c, const Json& json);
void read_gemma3_with_vision(Config& c, const Json& json);
Program gemma2_block(const Config& c, i64 layer);

void read_gpt_neox(Config& c, const Json& json);
Program gpt_neox_embedding(const Config& c);
Program gpt_neox_block(const Config& c, i64 layer);
Program gpt_neox_head(const Config& c);

void read_opt(Config& c, const Json& json);
Program opt_embedding(const Config& c);
Program opt_block(const Config& c, i64 layer);
Program opt_head(const Config& c);

void read_gpt2(Config& c, const Json& json);
Program gpt2_embedding(const Config& c);
Program gpt2_block(const Config& c, i64 layer);
Program gpt2_head(const Config& c);

void read_gptj(Config& c, const Json& json);
Program gptj_embedding(const Config& c);
Program gptj_block(const Config& c, i64 layer);
Program gptj_head(const Config& c);

void read_falcon(Config& c, const Json& json);
Program falcon_embedding(const Config& c);
Program falcon_block(const Config& c, i64 layer);
Program falcon_head(const Config& c);

void read_bloom(Config& c, const Json& json);
Program bloom_embedding(const Config& c);
Program bloom_block(const Config& c, i64 layer);
Program bloom_head(const Config& c);

void read_baichuan(Config& c, const Json& json);
Program baichuan_block(const Config& c, i64 layer);
Program baichuan_head(const Config& c);

void read_phi(Config& c, const Json& json);
void read_phi3(Config& c, const Json& json);
Program phi_block(const Config& c, i64 layer);
Program phi_head(const Config& c);
Program phi3_block(const Config& c, i64 layer);

void read_starcoder2(Config& c, const Json& json);
Program starcoder2_block(const Config& c, i64 layer);
Program starcoder2_head(const Config& c);

}  // namespace signround
