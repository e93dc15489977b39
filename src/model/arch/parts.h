// The two halves of a block, as most families have them. Names are the checkpoint's, within the block.
#pragma once
#include "model/config.h"

namespace signround {

// Rotates q and k where the layer does so, and attends: [N, heads * head_dim].
int attend(Builder& b, const Config& c, i64 layer, int q, int k, int v);

// self_attn.{q,k,v,o}_proj, with {q,k}_norm if the config says so.
int self_attention(Builder& b, const Config& c, i64 layer, int h);

// mlp.{gate,up,down}_proj
int gated_mlp(Builder& b, const Config& c, int h);

}  // namespace signround
