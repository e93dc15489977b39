// "added_tokens" of tokenizer.json: strings that are tokens as they stand, cut out of the text before anything else is done with
// it.
#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/byte_trie.h"
#include "text/normalize.h"
#include "text/vocab.h"

namespace signround {

struct AddedToken {
  std::string content;
  std::string matched;  // what is looked for in the text and given back by decode: the content, normalized if `normalized`
  i32 id = 0;
  bool single_word = false;             // not beside word characters
  bool lstrip = false, rstrip = false;  // takes the white space before, after it with it
  bool normalized = false;              // looked for in the normalized text, else in the raw one
  bool special = false;                 // left out by decode(.., skip_special)
};

class AddedTokens {
 public:
  // A token's id is that of the vocabulary, or the next one after it: as in the tokenizers library, which does not take it from
  // the file. json may be null.
  AddedTokens(const Json* json, const Vocab& vocab, const Normalizer& normalizer);

  struct Section {
    size_t begin, end;      // bytes
    std::optional<i32> id;  // of the token; none: text between tokens, not empty
  };
  // Cuts at the longest of the leftmost tokens, again and again. The text must be valid UTF-8.
  std::vector<Section> split_raw(std::string_view text) const { return split(raw_, text); }
  std::vector<Section> split_normalized(std::string_view text) const { return split(normalized_, text); }

  const AddedToken* find(std::string_view content) const;  // null: none
  const AddedToken* find(i32 id) const;
  i64 end() const;  // largest id + 1; 0 if there is none

 private:
  static i32 longest_at(const ByteTrie& trie, std::string_view text, size_t at, size_t& end);
  std::vector<Section> split(const ByteTrie& trie, std::string_view text) const;

  std::vector<AddedToken> tokens_;
  StringMap<size_t> by_content_;
  std::unordered_map<i32, size_t> by_id_;
  ByteTrie raw_, normalized_;  // values are indices of tokens_
};

}  // namespace signround
