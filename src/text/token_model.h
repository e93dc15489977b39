// The last stage of a tokenizer: a piece of text becomes ids. One implementation a kind of model ("type" in tokenizer.json).
#pragma once
#include <memory>

#include "io/json.h"
#include "text/vocab.h"

namespace signround {

class TokenModel {
 public:
  virtual ~TokenModel() = default;
  virtual const Vocab& vocab() const = 0;
  // Appends the ids of `piece`, which is valid UTF-8 and not empty.
  virtual void tokenize(std::string_view piece, std::vector<i32>& ids) const = 0;
};

// From "model" in tokenizer.json. Error{bad_input} if it is damaged or of a kind that is not supported.
std::unique_ptr<TokenModel> make_token_model(const Json& json);

}  // namespace signround
