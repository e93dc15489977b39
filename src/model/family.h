// A family of models is a reader of its config.json and three short functions that write Programs, one file in arch/. One line
// in family.cpp registers it.
#pragma once
#include "model/config.h"

namespace signround {

struct Family {
  const char* architecture;                      // as config.json names it
  void (*read)(Config&, const Json&);            // throws Error{bad_input} naming what it does not support
  Program (*embedding)(const Config&);           // ids -> hidden states
  Program (*block)(const Config&, i64 layer);
  Program (*head)(const Config&);                // hidden states -> logits
  const char* block_prefix;                      // "model.layers"
};

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

void read_olmo2(Config& c, const Json& json);
Program olmo2_block(const Config& c, i64 layer);

void read_gemma(Config& c, const Json& json);
void read_gemma2(Config& c, const Json& json);
void read_gemma3(Config& c, const Json& json);
Program gemma2_block(const Config& c, i64 layer);

}  // namespace signround
