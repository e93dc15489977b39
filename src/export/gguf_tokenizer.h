// tokenizer.json in llama.cpp's terms: the model "gpt2" (byte-level BPE, with the name of its pre-tokenizer) or "llama" (SPM).
#pragma once
#include "io/checkpoint.h"
#include "io/gguf.h"

namespace signround {

// `vocab` tokens, padded if the file has fewer. Throws Error{usage} for a tokenizer that llama.cpp has no model or name for,
// Error{bad_input} for a file that is missing or damaged.
GgufValues gguf_tokenizer(const Path& model, const Json& config, i64 vocab);

}  // namespace signround
