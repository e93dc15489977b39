// The small files of a model's directory that an output copies byte for byte.
#pragma once
#include <vector>

#include "io/file.h"

namespace signround {

// Tokenizer, generation settings, chat template, licence. Sorted; empty if `model` is no directory.
std::vector<Path> side_files(const Path& model);

// Those of them that say under which terms the model is given.
std::vector<Path> licence_files(const Path& model);

}  // namespace signround
