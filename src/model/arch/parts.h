// The halves of a block and both ends of a model, as most families have them. Names are the checkpoint's, within the block.
#pragma once
#include "model/config.h"

namespace signround {

// Rotates q and k where the layer does so, and attends: [N, heads * head_dim].
int attend(Builder& b, const Config& c, i64 layer, int q, int k, int v);

// PREFIX{q,k,v}_proj, with {q,k}_norm if the config says so, and PREFIX OUT.
int self_attention(Builder& b, const Config& c, i64 layer, int h, const std::string& prefix = "self_attn.",
                   const char* out = "o_proj");

// The same with one linear for q, k and v: its rows are, `parts` times, the q of some heads, then their k, then their v.
int fused_attention(Builder& b, const Config& c, i64 layer, int h, const char* fused, const char* out, i64 parts);

// PREFIX{gate,up,down}_proj, ffn wide; 0: as the config says.
int gated_mlp(Builder& b, const Config& c, int h, const std::string& prefix = "mlp.", i64 ffn = 0);

// The same for each of the experts that PREFIXgate chooses: PREFIXexperts.*.{GATE,UP,DOWN}.
int routed_mlp(Builder& b, const Config& c, int h, const std::string& prefix, const char* gate, const char* up, const char* down);

// Two linears and the activation between.
int plain_mlp(Builder& b, const Config& c, int h, const char* up, const char* down);

// The rows of one table, times embed_scale.
Program word_embedding(const Config& c, const char* prefix, const char* table);

// A last LayerNorm and the head, whose weight is the table of embeddings if they are tied.
Program layer_norm_head(const Config& c, const char* norm, const char* table, const char* head = "lm_head", bool bias = false);

}  // namespace signround
