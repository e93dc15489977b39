// "decoder" of tokenizer.json: tokens become text again.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "io/json.h"

namespace signround {

// Takes the tokens as they are in the vocabulary; gives valid UTF-8, with U+FFFD for bytes that are none.
using Decoder = std::function<std::string(std::vector<std::string> tokens)>;

// json may be null or a JSON null: the tokens with spaces between. Error{bad_input} if it is damaged or not supported.
Decoder make_decoder(const Json* json);

}  // namespace signround
