// Format "fake": plain weights that lie on the grid. Loads anywhere the original loads, saves no memory.
#pragma once
#include "export/export.h"

namespace signround {

std::unique_ptr<Exporter> make_fake_exporter(const ExportScheme& scheme);

}  // namespace signround
