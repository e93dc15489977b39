// "Precompiled" in tokenizer.json: SentencePiece's table of what strings become, as the tokenizers library applies it.
#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/dtype.h"

namespace signround {

class Charsmap {
 public:
  explicit Charsmap(std::string_view base64);  // Error{bad_input} if damaged

  // Of each group of characters that are seen as one (a letter and its accents): if it has less than six bytes and the table has
  // a key that it begins with, the shortest such key's value takes the place of the whole group; else each character is looked up
  // by itself. Error{bad_input}: the table leads out of itself.
  void apply(std::string& text) const;

 private:
  u32 unit(size_t at) const;
  std::optional<std::string_view> value_of(std::string_view text) const;

  std::vector<u32> units_;  // double array: a trie whose node i has its child by byte b at i ^ offset(i) ^ b
  std::string values_;      // UTF-8, each ended by a NUL
};

}  // namespace signround
