// Rotary positions as config.json asks for them: the frequencies of the pairs, rescaled for long contexts, and the angles of a
// sequence. Formulas as in transformers' modeling_rope_utils, by the names that it has for them.
#pragma once
#include "io/json.h"
#include "model/program.h"

namespace signround {

// inv_freq[i] = theta^(-2i/d), rescaled as `scaling` says: "default", "linear", "dynamic", "yarn", "llama3", "longrope". `json`:
// the whole configuration, for the lengths of the context; `original`: of the context before it was stretched, where neither
// names it (0: as long as max_position_embeddings). Throws Error{bad_input} naming the key or the kind.
RopeTable read_rope(const Json& json, const Json& scaling, double theta, i64 rotary_dim, i64 original = 0);

// [tokens, 2 * pairs]: the cosines of the pairs' angles, then the sines.
std::vector<float> rope_angles(const RopeTable& table, i64 tokens);

}  // namespace signround
