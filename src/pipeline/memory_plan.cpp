#include "pipeline/memory_plan.h"

namespace signround {

MemoryPlan arrange(MemoryPlan plan, Memory memory, i64 free) {
  constexpr i64 kLarge = i64{1} << 30;
  plan.targets_on_host = memory == Memory::least || (memory == Memory::balanced && plan.cache > kLarge);
  plan.inputs_on_host = plan.snapshots_on_host = memory == Memory::least;
  if (memory != Memory::balanced) return plan;
  for (bool* place : {&plan.targets_on_host, &plan.inputs_on_host, &plan.snapshots_on_host})
    if (plan.device_bytes() > free) *place = true;
  return plan;
}

}  // namespace signround
