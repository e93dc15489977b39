// The numbers of a model, read from config.json and checked: nothing absurd gets further than this.
#pragma once
#include <string>
#include <vector>

#include "io/json.h"
#include "model/program.h"

namespace signround {

struct Config {
  std::string architecture;  // "LlamaForCausalLM"
  i64 hidden = 0, ffn = 0, layers = 0, heads = 0, kv_heads = 0, head_dim = 0, vocab = 0;
  i64 max_positions = 0;
  float norm_eps = 0;
  Activation activation = Activation::silu;
  bool tied_head = false, attention_bias = false, mlp_bias = false;
  RopeTable rope;
  DType dtype = DType::bf16;  // of the weights, as the file claims; each tensor's own type decides

  i64 parameters() const;  // linear weights of all blocks
};

// Throws Error{bad_input} naming the key and its value.
Config read_config(const Json& json);

// inv_freq[i] = theta^(-2i/d), rescaled as `rope_scaling` says: none, "default", "linear", "llama3".
RopeTable read_rope(const Json& json, i64 rotary_dim);

}  // namespace signround
