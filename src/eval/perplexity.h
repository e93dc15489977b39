// Perplexity of a model on a text, in non-overlapping windows, each scored from its second token.
#pragma once
#include <functional>
#include <optional>
#include <string>

#include "ops/ops.h"

namespace signround {

struct PerplexityOptions {
  std::string model;
  std::string text;    // path of a text file, or empty
  std::string ids;     // path of an ids file instead
  i64 seqlen = 2048;
  i64 windows = 0;     // first so many; 0: all; the remainder of the text is dropped
  i64 batch_size = 1;  // windows at a time
  std::string device = "auto";
  std::optional<Precision> precision = {};  // default: bf16 on a GPU, f32 on a CPU
};

struct PerplexityReport {
  double perplexity = 0, nll = 0;  // nll: mean, in nats
  i64 tokens = 0;                  // scored
  i64 windows = 0;
  double seconds = 0;
};

PerplexityReport perplexity(const PerplexityOptions& options, const std::function<void(i64 done, i64 all)>& progress);

}  // namespace signround
