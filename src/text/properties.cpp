#include "text/properties.h"

#include <algorithm>

namespace signround {
namespace {

#include "text/property_tables.inc"

struct Category {
  std::string_view code, name;
};
constexpr Category kCategories[] = {
    {"L", "letter"}, {"Lu", "uppercaseletter"}, {"Ll", "lowercaseletter"}, {"Lt", "titlecaseletter"}, {"Lm", "modifierletter"},
    {"Lo", "otherletter"}, {"M", "mark"}, {"Mn", "nonspacingmark"}, {"Mc", "spacingmark"}, {"Me", "enclosingmark"},
    {"N", "number"}, {"Nd", "decimalnumber"}, {"Nl", "letternumber"}, {"No", "othernumber"}, {"P", "punctuation"},
    {"Pc", "connectorpunctuation"}, {"Pd", "dashpunctuation"}, {"Ps", "openpunctuation"}, {"Pe", "closepunctuation"},
    {"Pi", "initialpunctuation"}, {"Pf", "finalpunctuation"}, {"Po", "otherpunctuation"}, {"S", "symbol"}, {"Sm", "mathsymbol"},
    {"Sc", "currencysymbol"}, {"Sk", "modifiersymbol"}, {"So", "othersymbol"}, {"Z", "separator"}, {"Zs", "spaceseparator"},
    {"Zl", "lineseparator"}, {"Zp", "paragraphseparator"}, {"C", "other"}, {"Cc", "control"}, {"Cf", "format"},
    {"Cs", "surrogate"}, {"Co", "privateuse"}, {"Cn", "unassigned"},
};

std::string simplified(std::string_view name) {
  std::string simple;
  for (const char c : name) {
    if (c != ' ' && c != '_' && c != '-') simple += 'A' <= c && c <= 'Z' ? static_cast<char>(c | 0x20) : c;
  }
  return simple;
}

CodeSet code_points_of_script(u32 script) {
  std::vector<CodeRange> found;
  constexpr size_t count = std::size(kScriptStarts);
  for (size_t i = 0; i < count; ++i) {
    const char32_t end = i + 1 < count ? kScriptStarts[i + 1] / 256 : kMaxCodePoint + 1;
    if (kScriptStarts[i] % 256 == script) found.push_back({kScriptStarts[i] / 256, end - 1});
  }
  return CodeSet(std::move(found));
}

}  // namespace

CodeSet code_points_with(std::string_view name) {
  const std::string simple = simplified(name);
  if (simple.empty()) return {};
  for (const auto& [code, long_name] : kCategories) {
    if (simple == simplified(code) || simple == long_name) return code_points_of(code);
  }
  const auto script = std::find(std::begin(kScripts), std::end(kScripts), simple);
  return script == std::end(kScripts) ? CodeSet() : code_points_of_script(static_cast<u32>(script - std::begin(kScripts)));
}

const CodeSet& regex_word_characters() {
  static const CodeSet set = code_points_of("L") | code_points_of("M") | code_points_of("Nd") | code_points_of("Nl") |
                             code_points_of("Pc") | CodeSet({std::begin(kOtherRegexWord), std::end(kOtherRegexWord)});
  return set;
}

const CodeSet& lone_regex_word_characters() {
  static const CodeSet set = regex_word_characters() | CodeSet({std::begin(kLoneRegexWord), std::end(kLoneRegexWord)});
  return set;
}

}  // namespace signround
