// "normalizer" of tokenizer.json: what happens to a text before it is cut.
#pragma once
#include <functional>
#include <string>

#include "io/json.h"

namespace signround {

using Normalizer = std::function<void(std::string& text)>;  // valid UTF-8 before and after

// json may be null or a JSON null: the result is empty, the text stays as it is. Error{bad_input}: damaged, or not supported.
Normalizer make_normalizer(const Json* json);

}  // namespace signround
