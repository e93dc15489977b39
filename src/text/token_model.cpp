#include "text/token_model.h"

#include "text/bpe.h"
#include "text/unsupported.h"

namespace signround {

std::unique_ptr<TokenModel> make_token_model(const Json& json) {
  // Old files do not name the type; of those with merges it is BPE.
  const std::string type = json.string("type", json.find("merges") ? "BPE" : "");
  if (type == "BPE") return std::make_unique<Bpe>(json);
  unsupported("a tokenizer model of type ", quote(type));
}

}  // namespace signround
