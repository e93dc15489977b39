// README.md of an output: what it is, how it was made, who can load it.
#pragma once
#include "export/loaders.h"
#include "export/manifest.h"
#include "io/checkpoint.h"

namespace signround {

std::string model_card(const Manifest& manifest, const std::vector<Verdict>& loaders, const Checkpoint& source);

}  // namespace signround
