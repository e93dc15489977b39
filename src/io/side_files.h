// The small files of a model's directory that an output copies byte for byte.
#pragma once
#include <vector>

#include "io/file.h"

namespace signround {

// Tokenizer, generation settings, chat template, what prepares pictures, licence; with_code: the model's own code too. Sorted;
// empty if `model` is no directory.
std::vector<Path> side_files(const Path& model, bool with_code);

// Those of them that say under which terms the model is given.
std::vector<Path> licence_files(const Path& model);

}  // namespace signround
