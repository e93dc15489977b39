#include "text/normalize.h"

#include "text/byte_level.h"
#include "text/charsmap.h"
#include "text/normal_form.h"
#include "text/pattern.h"
#include "text/unicode.h"
#include "text/unsupported.h"

namespace signround {
namespace {

Normalizer sequence(const Json& json) {
  std::vector<Normalizer> steps;
  for (const Json& step : json.array("normalizers")) {
    if (Normalizer made = make_normalizer(&step)) steps.push_back(std::move(made));
  }
  return [steps = std::move(steps)](std::string& text) {
    bool start_gone = false;
    for (const Normalizer& step : steps) start_gone = step(text) || start_gone;
    return start_gone;
  };
}

Normalizer prepend(const Json& json) {
  return [prefix = json.string("prepend")](std::string& text) {
    if (!text.empty()) text.insert(0, prefix);
    return false;
  };
}

Normalizer replace(const Json& json) {
  const Json& pattern = json.at("pattern");
  const Json* regex = pattern.find("Regex");
  Pattern found = regex ? Pattern::regex(regex->string()) : Pattern::literal(pattern.string("String"));
  return [found = std::move(found), content = json.string("content")](std::string& text) {
    std::string out;
    size_t at = 0;
    bool start_gone = false;
    while (const auto match = found.find(text, at)) {
      start_gone = start_gone || (content.empty() && match->begin == 0);
      out.append(text, at, match->begin - at) += content;
      at = match->end;
    }
    text = out.append(text, at);
    return start_gone;
  };
}

Normalizer strip(const Json& json) {
  return [left = json.boolean("strip_left"), right = json.boolean("strip_right")](std::string& text) {
    size_t begin = 0, end = text.size();
    for (size_t next = 0; left && begin < end && white_space().contains(next_code_point(text, next));) begin = next;
    for (size_t before = end; right && before > begin && white_space().contains(previous_code_point(text, before));) end = before;
    text = text.substr(begin, end - begin);
    return begin > 0;
  };
}

void byte_level(std::string& text) {
  std::string out;
  for (const char byte : text) append_byte_symbol(out, static_cast<u8>(byte));
  text = std::move(out);
}

// Of a change of the text that leaves its start a start.
template <class Change>
Normalizer changing(Change change) {
  return [change = std::move(change)](std::string& text) {
    change(text);
    return false;
  };
}

Normalizer normal_form(NormalForm form) {
  return changing([form](std::string& text) { to_normal_form(text, form); });
}

}  // namespace

Normalizer make_normalizer(const Json* json) {
  if (!json || json->is_null()) return {};
  const std::string& type = json->string("type");
  if (type == "Sequence") return sequence(*json);
  if (type == "Prepend") return prepend(*json);
  if (type == "Replace") return replace(*json);
  if (type == "Strip") return strip(*json);
  if (type == "NFC") return normal_form(NormalForm::nfc);
  if (type == "NFD") return normal_form(NormalForm::nfd);
  if (type == "NFKC") return normal_form(NormalForm::nfkc);
  if (type == "NFKD") return normal_form(NormalForm::nfkd);
  if (type == "Lowercase") return changing(to_lower_case);
  if (type == "StripAccents") return strip_accents;
  if (type == "Nmt") return clean_white_space;
  if (type == "ByteLevel") return changing(byte_level);
  if (type == "Precompiled") {
    return changing([table = Charsmap(json->string("precompiled_charsmap"))](std::string& text) { table.apply(text); });
  }
  unsupported("normalizer ", quote(type));
}

}  // namespace signround
