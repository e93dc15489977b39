// "pre_tokenizer" of tokenizer.json: cuts a text into the pieces within which the model looks for tokens.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "io/json.h"

namespace signround {

struct Pieces {
  struct Span {
    size_t begin, end;  // bytes of text; begin < end
  };
  std::string text;         // valid UTF-8
  std::vector<Span> spans;  // in order, without overlap; what lies between them is gone
  bool at_start = false;    // the first of them begins the whole text that is encoded
};

using PreTokenizer = std::function<void(Pieces&)>;

// json may be null or a JSON null: one piece. Error{bad_input} if it is damaged or of a kind that is not supported.
PreTokenizer make_pre_tokenizer(const Json* json);

}  // namespace signround
