// "normalizer" of tokenizer.json: what happens to a text before it is cut.
#pragma once
#include <functional>
#include <string>

#include "io/json.h"

namespace signround {

// Valid UTF-8 before and after. True: the character that began the text is gone, not changed, so that what begins the text now
// does not begin what was given (Metaspace asks for that).
using Normalizer = std::function<bool(std::string& text)>;

// json may be null or a JSON null: the result is empty, the text stays as it is. Error{bad_input}: damaged, or not supported.
Normalizer make_normalizer(const Json* json);

}  // namespace signround
