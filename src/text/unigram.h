// Unigram: every token has a score, the logarithm of its probability; a piece becomes the tokens with the largest sum of scores.
#pragma once
#include "text/byte_trie.h"
#include "text/token_model.h"

namespace signround {

class Unigram : public TokenModel {
 public:
  explicit Unigram(const Json& json);
  const Vocab& vocab() const override { return vocab_; }
  // O(n) times the length of the longest token. Error{bad_input}: an unknown character, and the file has no unknown token.
  void tokenize(std::string_view piece, std::vector<i32>& ids) const override;

 private:
  struct Best;
  std::vector<Best> best_paths(std::string_view piece) const;
  void append(std::string_view token, std::vector<i32>& ids) const;

  Vocab vocab_;
  std::vector<double> scores_;  // by id
  ByteTrie trie_;               // of the tokens; values are ids
  std::optional<i32> unknown_;
  double unknown_score_ = 0;
  std::vector<i32> byte_ids_;  // as byte_fallback_ids gives them; empty: no byte_fallback
};

}  // namespace signround
