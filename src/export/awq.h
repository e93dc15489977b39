// Format "awq": 4 bits with zero points, as AutoAWQ's kernel "gemm" reads them.
#pragma once
#include "export/export.h"

namespace signround {

std::unique_ptr<Exporter> make_awq_exporter(const ExportScheme& scheme);

}  // namespace signround
