// From the command line of `signround quantize` to the pipeline's options.
#pragma once
#include <span>

#include "cli/options.h"
#include "pipeline/quantize.h"

namespace signround {

extern const std::span<const Flag> kQuantizeFlags;  // of quantize and of plan

// Throws Error{usage} for what the table of flags cannot see: words that exclude each other, schemes that do not exist.
QuantizeOptions quantize_options(const Arguments& args);

}  // namespace signround
