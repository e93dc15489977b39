// What llama.cpp calls an architecture, its tensors and its numbers.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "io/gguf.h"
#include "model/config.h"

namespace signround {

struct GgufArchitecture {
  const char* name;     // "LlamaForCausalLM"
  const char* gguf;     // "llama"
  bool permuted;        // rows of q and k in pairs of neighbours that rotate together, instead of halves
  bool four_norms = false;                   // a block has norms behind its halves too, and ffn_norm is called otherwise
  Activation activation = Activation::silu;  // the one that llama.cpp has for it
  i64 window_period = 0;                     // every so many layers one without a window, unless it is told; 0: no windows
  i64 wide_layers = 0;                       // of the one size whose scores are scaled by hidden / heads instead of head_dim
  bool experts = false;                      // in every layer, none with a window
  bool normalized = false;                   // their weights sum to 1
};

// Throws Error{usage} that names those that are known, or what llama.cpp does not have of this model.
const GgufArchitecture& gguf_architecture(const Config& config);

// "model.layers.0.mlp.up_proj.weight" -> "blk.0.ffn_up.weight"; "" for what llama.cpp has no place for and makes itself (rotary
// tables). Throws Error{usage} for a tensor that is not known.
std::string gguf_name(const std::string& tensor, const GgufArchitecture& architecture);

// Experts are stacked there: 3 for "model.layers.0.mlp.experts.3.up_proj.weight", a part of "blk.0.ffn_up_exps.weight"; -1: it
// is no part.
i64 expert_of(const std::string& tensor);

// Rows of heads from halves [2, head_dim/2] to pairs [head_dim/2, 2], and back.
std::vector<std::byte> to_pairs(std::span<const std::byte> rows, i64 count, i64 head_dim);
std::vector<std::byte> to_halves(std::span<const std::byte> rows, i64 count, i64 head_dim);
bool rotates(const std::string& tensor);  // rows of q and k

// Architecture and numbers, no name.
GgufValues gguf_values(const Config& config, const GgufArchitecture& architecture, u32 file_type);

// What is said about rotary positions: values, and tensors [pairs] of how much slower each pair rotates than theta alone says.
struct GgufRope {
  GgufValues values;
  std::map<std::string, std::vector<float>> factors;  // by tensor; none where theta, and at the most a linear scale, say it all
};
// Throws Error{usage} if llama.cpp cannot be told.
GgufRope gguf_rope(const Config& config, const GgufArchitecture& architecture, const Json& json);

}  // namespace signround
