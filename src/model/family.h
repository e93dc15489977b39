// A family of models is three short functions that write Programs. One line in family.cpp registers it.
#pragma once
#include "model/config.h"

namespace signround {

struct Family {
  const char* architecture;  // as config.json names it
  Program (*embedding)(const Config&);      // ids -> hidden states
  Program (*block)(const Config&, i64 layer);
  Program (*head)(const Config&);           // hidden states -> logits
  const char* block_prefix;                 // "model.layers"
};

// Throws Error{bad_input} that names the architecture and those that are known.
const Family& family_of(const Config& config);

Program llama_embedding(const Config& c);
Program llama_block(const Config& c, i64 layer);
Program llama_head(const Config& c);

}  // namespace signround
