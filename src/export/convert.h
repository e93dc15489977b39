// Another format from the integers of an output that exists: nothing is tuned, nothing is rounded again.
#pragma once
#include "export/model_writer.h"

namespace signround {

struct ConvertOptions {
  std::string input, output;  // directories
  std::string format;
  bool force = false;
  u64 shard_bytes = kShardBytes;
};

struct ConvertReport {
  std::string output;
  i64 layers = 0;
  u64 bytes = 0;
  std::vector<Verdict> loaders;
};

// The output is byte for byte what the tuning run would have written in this format. Throws Error{usage} if the format cannot
// hold the grid, Error{verification} if a layer is not as it was tuned, Error{bad_input} if the input is none of ours or has no
// integers.
ConvertReport convert(const ConvertOptions& options);

}  // namespace signround
