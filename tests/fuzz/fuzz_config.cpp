// Any config.json: refused with bad_input, or numbers from which a block can be planned.
#include <cstdlib>

#include "model/family.h"
#include "model/plan.h"

using namespace signround;

extern "C" int LLVMFuzzerTestOneInput(const u8* data, size_t size) {
  try {
    const Config config = read_config(parse_json({reinterpret_cast<const char*>(data), size}));
    const Program block = family_of(config).block(config, config.layers - 1);
    PlanOptions options;
    options.tokens = 16;
    options.tuning = true;
    for (const WeightRef& w : block.weights) options.trainable.push_back(w.linear);
    options.weight_types.assign(block.weights.size(), DType::bf16);
    if (make_plan(block, options).bytes <= 0) std::abort();
  } catch (const Error& e) {
    if (e.kind != ErrorKind::bad_input) std::abort();
  }
  return 0;
}
