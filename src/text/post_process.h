// What is put around the ids of a text: BOS, EOS and the like, from "post_processor" of tokenizer.json and from
// tokenizer_config.json.
#pragma once
#include "text/added_tokens.h"

namespace signround {

struct SpecialIds {
  std::vector<i32> before, after;  // what goes around a text
  std::optional<i32> bos, eos;     // as named by tokenizer_config.json
};

// post_processor may be null or a JSON null; config is the root of tokenizer_config.json, or null. add_bos_token and
// add_eos_token, where the config has them, decide about the first and the last id; else the post-processor does.
SpecialIds special_ids(const Json* post_processor, const Json* config, const AddedTokens& added, const Vocab& vocab);

}  // namespace signround
