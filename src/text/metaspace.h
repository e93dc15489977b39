// "Metaspace" in tokenizer.json, as a pre-tokenizer and as a decoder: spaces become a visible character, as in SentencePiece.
#pragma once
#include <string>

#include "io/json.h"

namespace signround {

struct Metaspace {
  enum class Prepend { always, first, never };  // before every piece, before the one that begins the text, not at all

  std::string replacement;  // one character
  Prepend prepend = Prepend::always;
  bool split = true;  // each replacement begins a new piece
};

Metaspace read_metaspace(const Json& json);  // Error{bad_input}

}  // namespace signround
