#include "text/decode.h"

#include "text/byte_level.h"
#include "text/unicode.h"
#include "text/unsupported.h"

namespace signround {
namespace {

using Tokens = std::vector<std::string>;
using Step = std::function<void(Tokens&)>;  // the result is what is left, put together

// The bytes of all tokens, so that a character may be spread over several; a token that is not written in the alphabet stands for
// itself.
void byte_level(Tokens& tokens) {
  std::string bytes;
  for (const std::string& token : tokens) {
    const size_t start = bytes.size();
    for (size_t at = 0; at < token.size();) {
      const int byte = byte_of_symbol(next_code_point(token, at));
      if (byte < 0) {
        bytes.resize(start);
        bytes += token;
        break;
      }
      bytes.push_back(static_cast<char>(byte));
    }
  }
  tokens = {to_utf8_lossy(bytes)};
}

Step make_step(const Json& json) {
  const std::string& type = json.string("type");
  if (type == "ByteLevel") return byte_level;
  if (type == "Fuse") return [](Tokens& tokens) {
    std::string all;
    for (const std::string& token : tokens) all += token;
    tokens = {std::move(all)};
  };
  if (type == "Sequence") {
    std::vector<Step> steps;
    for (const Json& step : json.array("decoders")) steps.push_back(make_step(step));
    return [steps = std::move(steps)](Tokens& tokens) {
      for (const Step& step : steps) step(tokens);
    };
  }
  unsupported("decoder ", quote(type));
}

std::string joined(const Tokens& tokens, std::string_view between) {
  std::string all;
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (i > 0) all += between;
    all += tokens[i];
  }
  return all;
}

}  // namespace

Decoder make_decoder(const Json* json) {
  if (!json || json->is_null()) return [](const Tokens& tokens) { return joined(tokens, " "); };
  return [step = make_step(*json)](Tokens tokens) {
    step(tokens);
    return joined(tokens, "");
  };
}

}  // namespace signround
