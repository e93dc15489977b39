// What a device reaches in matrix products, measured: the yardstick beside which a run's arithmetic is shown.
#pragma once
#include "ops/ops.h"

namespace signround {

// 1e12 operations per second of the best of several products [1024,1024] x [1024,1024]; takes about a tenth of a second.
double matmul_tflops(Backend& backend);

}  // namespace signround
