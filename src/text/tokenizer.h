// Text to token ids and back, exactly as the tokenizers library does it for the tokenizer.json of a model. The stages: added
// tokens are cut out; the rest is normalized, cut into pieces (pre-tokenizer), and each piece becomes ids (model); BOS and EOS go
// around (post-processor). The objects "truncation" and "padding" of the file are ignored.
#pragma once
#include <memory>
#include <span>

#include "text/decode.h"
#include "text/post_process.h"
#include "text/pretokenize.h"
#include "text/token_model.h"

namespace signround {

class Tokenizer {
 public:
  // The contents of the two files; the second may be empty. Error{bad_input}: damaged, or a part is not supported.
  explicit Tokenizer(std::string_view tokenizer_json, std::string_view tokenizer_config_json = {});

  // add_special: with what special() has around it. Error{bad_input} if the text is not UTF-8 (with the offset), or of 1 GiB or
  // more. Safe to call from several threads.
  std::vector<i32> encode(std::string_view text, bool add_special) const;

  // skip_special: without the tokens that the file calls special. An id that no token has gives nothing: the vocabulary of a
  // model is often padded.
  std::string decode(std::span<const i32> ids, bool skip_special) const;

  i64 vocab_size() const;  // largest id + 1
  const SpecialIds& special() const { return special_; }
  std::optional<i32> find(std::string_view token) const;

 private:
  class Cache;
  void encode_section(std::string_view text, bool at_start, Cache& cache, std::vector<i32>& ids) const;

  std::unique_ptr<TokenModel> model_;
  Normalizer normalizer_;
  std::unique_ptr<AddedTokens> added_;
  PreTokenizer pre_tokenizer_;
  Decoder decoder_;
  SpecialIds special_;
};

}  // namespace signround
