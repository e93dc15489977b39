// What llama.cpp calls an architecture, its tensors and its numbers.
#pragma once
#include <optional>
#include <string>

#include "io/gguf.h"
#include "model/config.h"

namespace signround {

struct GgufArchitecture {
  const char* name;     // "LlamaForCausalLM"
  const char* gguf;     // "llama"
  bool permuted;        // rows of q and k in pairs of neighbours that rotate together, instead of halves
};

// Throws Error{usage} that names those that are known.
const GgufArchitecture& gguf_architecture(const Config& config);

// "model.layers.0.mlp.up_proj.weight" -> "blk.0.ffn_up.weight"; "" for what llama.cpp has no place for and makes itself (rotary
// tables). Throws Error{usage} for a tensor that is not known.
std::string gguf_name(const std::string& tensor);

// Rows of heads from halves [2, head_dim/2] to pairs [head_dim/2, 2], and back.
std::vector<std::byte> to_pairs(std::span<const std::byte> rows, i64 count, i64 head_dim);
std::vector<std::byte> to_halves(std::span<const std::byte> rows, i64 count, i64 head_dim);
bool rotates(const std::string& tensor);  // rows of q and k

// Architecture and numbers.
GgufValues gguf_values(const Config& config, const GgufArchitecture& architecture, const Json& json, u32 file_type);

// How much slower each pair of dimensions rotates than theta alone says; empty if none does. Throws Error{usage} if llama.cpp
// cannot be told.
std::vector<float> gguf_rope_factors(const Config& config, const GgufArchitecture& architecture, const Json& json);

}  // namespace signround
