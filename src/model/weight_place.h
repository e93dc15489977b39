// Where a weight lies in a checkpoint: usually in a tensor of its name. Newer checkpoints stack the experts of a layer,
//   P.experts.gate_up_proj [E, 2F, D]:  P.experts.3.gate_proj.weight is [3, :F], P.experts.3.up_proj.weight is [3, F:]
//   P.experts.down_proj [E, D, F]:      P.experts.3.down_proj.weight is [3]
// and what Mixtral's first checkpoints call block_sparse_moe, w1, w3 and w2 is mlp, gate_proj, up_proj and down_proj there.
#pragma once
#include <string>
#include <vector>

#include "io/checkpoint.h"

namespace signround {

struct WeightPlace {
  const TensorInfo* tensor;
  u64 first = 0;           // byte of the tensor where the weight begins
  std::vector<i64> shape;  // of the weight
};

// Throws Error{bad_input} naming the weight if it is nowhere, or the tensor if it is no stack.
WeightPlace find_weight(const Checkpoint& checkpoint, const std::string& name);

}  // namespace signround
