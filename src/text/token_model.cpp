#include "text/token_model.h"

#include "text/bpe.h"
#include "text/unigram.h"
#include "text/unsupported.h"

namespace signround {

std::unique_ptr<TokenModel> make_token_model(const Json& json) {
  // Old files do not name the type; of those with merges it is BPE, of those with a list as vocabulary Unigram.
  const Json* vocab = json.find("vocab");
  const bool list = vocab && vocab->kind() == Json::Kind::array;
  const std::string type = json.string("type", json.find("merges") ? "BPE" : list ? "Unigram" : "");
  if (type == "BPE") return std::make_unique<Bpe>(json);
  if (type == "Unigram") return std::make_unique<Unigram>(json);
  unsupported("a tokenizer model of type ", quote(type));
}

}  // namespace signround
