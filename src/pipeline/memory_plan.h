// Where the large things of a run lie: on the device, or in pinned memory of the host, which the device reads over the bus.
#pragma once
#include "ops/ops.h"

namespace signround {

// least: all that can lies on the host. balanced: the targets too if they are large, for they arrive while a block computes; the
// rest only if it must. most: nothing.
enum class Memory : u8 { least, balanced, most };

struct MemoryPlan {
  i64 arena = 0;      // bytes: the largest block's weights, parameters and activations; always on the device
  i64 snapshots = 0;  // best parameters so far
  i64 cache = 0;      // hidden states of all samples in one of the two chains
  bool targets_on_host = false, inputs_on_host = false, snapshots_on_host = false;

  i64 host_bytes() const { return cache * targets_on_host + cache * inputs_on_host + snapshots * snapshots_on_host; }
  i64 device_bytes() const { return arena + snapshots + 2 * cache - host_bytes(); }
};

// Whether targets that take so many bytes lie on the host and come ahead of the steps that want them, so that they cost no time.
bool targets_ahead(Memory memory, i64 cache);

// Sets the places: the first that `memory` allows and that fits `free` bytes of the device, else the last that it allows.
MemoryPlan arrange(MemoryPlan sizes, Memory memory, i64 free);

}  // namespace signround
