#include "text/normalize.h"

#include "text/pattern.h"
#include "text/unsupported.h"

namespace signround {
namespace {

Normalizer sequence(const Json& json) {
  std::vector<Normalizer> steps;
  for (const Json& step : json.array("normalizers")) {
    if (Normalizer made = make_normalizer(&step)) steps.push_back(std::move(made));
  }
  return [steps = std::move(steps)](std::string& text) {
    for (const Normalizer& step : steps) step(text);
  };
}

Normalizer prepend(const Json& json) {
  return [prefix = json.string("prepend")](std::string& text) {
    if (!text.empty()) text.insert(0, prefix);
  };
}

Normalizer replace(const Json& json) {
  const Json& pattern = json.at("pattern");
  const Json* regex = pattern.find("Regex");
  Pattern found = regex ? Pattern::regex(regex->string()) : Pattern::literal(pattern.string("String"));
  return [found = std::move(found), content = json.string("content")](std::string& text) {
    std::string out;
    size_t at = 0;
    while (const auto match = found.find(text, at)) {
      out.append(text, at, match->begin - at) += content;
      at = match->end;
    }
    text = out.append(text, at);
  };
}

}  // namespace

Normalizer make_normalizer(const Json* json) {
  if (!json || json->is_null()) return {};
  const std::string& type = json->string("type");
  if (type == "Sequence") return sequence(*json);
  if (type == "Prepend") return prepend(*json);
  if (type == "Replace") return replace(*json);
  unsupported("normalizer ", quote(type));
}

}  // namespace signround
