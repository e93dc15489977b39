// Format "auto_round": what auto-round writes, and vLLM, SGLang and transformers read.
#pragma once
#include "export/export.h"

namespace signround {

std::unique_ptr<Exporter> make_auto_round_exporter(const ExportScheme& scheme);

}  // namespace signround
