// Text from a model, a token at a time.
#pragma once
#include <functional>
#include <optional>
#include <string>

#include "ops/ops.h"

namespace signround {

struct GenerateOptions {
  std::string model, prompt;
  i64 tokens = 64;          // at most so many new ones; stops at the end-of-text token
  double temperature = 0;   // 0: greedy
  double top_p = 1;
  i64 seed = 42;
  std::string device = "auto";
  std::optional<Precision> precision = {};  // default: bf16 on a GPU, f32 on a CPU
};

// Streams the text as whole UTF-8 characters; returns the number of tokens made.
i64 generate(const GenerateOptions& options, const std::function<void(std::string_view text)>& emit);

}  // namespace signround
