// Format "compressed-tensors": pack-quantized integers, read by vLLM, SGLang and transformers with the package of that name.
#pragma once
#include "export/export.h"

namespace signround {

std::unique_ptr<Exporter> make_compressed_tensors_exporter(const ExportScheme& scheme);

}  // namespace signround
