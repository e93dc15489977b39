// Formats "gptq" and "gptq_v2": what GPTQModel, vLLM and SGLang read.
// The first stores zero points less one, the second as they are.
#pragma once
#include "export/export.h"

namespace signround {

std::unique_ptr<Exporter> make_gptq_exporter(const ExportScheme& scheme);
std::unique_ptr<Exporter> make_gptq_v2_exporter(const ExportScheme& scheme);

}  // namespace signround
