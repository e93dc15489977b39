// Byte-pair encoding: a piece begins as single characters; then, again and again, the neighbouring pair with the lowest rank
// becomes one token, the leftmost first among equals.
#pragma once
#include "text/token_model.h"

namespace signround {

class Bpe : public TokenModel {
 public:
  explicit Bpe(const Json& json);
  const Vocab& vocab() const override { return vocab_; }
  void tokenize(std::string_view piece, std::vector<i32>& ids) const override;  // O(n log n)

 private:
  struct Merge {
    i32 rank, id;
  };
  void add_merge(std::string_view left, std::string_view right, i32 rank);
  std::vector<i32> characters(std::string_view piece) const;
  const Merge* merge_of(i32 left, i32 right) const;

  Vocab vocab_;
  std::unordered_map<u64, Merge> merges_;  // by left id << 32 | right id
  std::vector<i32> byte_ids_;              // as byte_fallback_ids gives them; empty: no byte_fallback
  std::optional<i32> unknown_;             // without it an unknown character is dropped
  bool fuse_unknown_ = false, ignore_merges_ = false;
  std::string prefix_, suffix_;            // continuing_subword_prefix, end_of_word_suffix
};

}  // namespace signround
