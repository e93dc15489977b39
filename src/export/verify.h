// Whether an output is what was tuned: everything in it is decoded and compared with its manifest.
#pragma once
#include "io/file.h"

namespace signround {

struct VerifyReport {
  std::string format;
  i64 layers = 0, tensors = 0, files = 0;  // found to be right
};

// Throws Error{verification} with the first thing that is off: a side file that is missing, a configuration that does not fit the
// tensors, a layer that decodes to other integers or scales, NaN or infinity, bytes that changed. Error{bad_input} if the
// directory is none of ours.
VerifyReport verify(const Path& directory);

}  // namespace signround
