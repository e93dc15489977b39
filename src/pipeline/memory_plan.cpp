#include "pipeline/memory_plan.h"

namespace signround {

bool targets_ahead(Memory memory, i64 cache) {
  constexpr i64 kLarge = i64{1} << 30;
  return memory == Memory::balanced && cache > kLarge;
}

MemoryPlan arrange(MemoryPlan plan, Memory memory, i64 free) {
  plan.targets_on_host = memory == Memory::least || targets_ahead(memory, plan.cache);
  plan.inputs_on_host = plan.snapshots_on_host = memory == Memory::least;
  if (memory != Memory::balanced) return plan;
  for (bool* place : {&plan.targets_on_host, &plan.inputs_on_host, &plan.snapshots_on_host})
    if (plan.device_bytes() > free) *place = true;
  return plan;
}

}  // namespace signround
