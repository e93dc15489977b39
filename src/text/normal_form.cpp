#include "text/normal_form.h"

#include <algorithm>
#include <unordered_map>
#include <vector>

#include "text/unicode.h"

namespace signround {
namespace {

#include "text/normal_tables.inc"

using Text = std::vector<char32_t>;

// What becomes of single characters, from a table of records.
class Mapping {
 public:
  template <size_t N>
  explicit Mapping(const char32_t (&records)[N]) : records_(records, records + N) {
    for (size_t begin = 0, end = 0; begin < N; begin = end) {
      for (end = begin + 1; end < N && !(records[end] & kKey); ++end) {}
      places_[records[begin] & ~kKey] = {begin + 1, end};
    }
  }
  bool append(Text& out, char32_t c) const {  // false: there is no record of c
    const auto it = places_.find(c);
    if (it == places_.end()) return false;
    for (size_t i = it->second.begin; i < it->second.end; ++i) out.push_back(records_[i]);
    return true;
  }

 private:
  static constexpr char32_t kKey = 1 << 24;
  struct Place {
    size_t begin, end;
  };
  std::vector<char32_t> records_;
  std::unordered_map<char32_t, Place> places_;
};

class CombiningClasses {
 public:
  CombiningClasses() {
    for (const auto& [first, last, value] : kCombiningClasses) {
      for (char32_t c = first; c <= last; ++c) classes_[c] = static_cast<u8>(value);
    }
  }
  int operator()(char32_t c) const {
    const auto it = c < kCombiningClasses[0][0] ? classes_.end() : classes_.find(c);
    return it == classes_.end() ? 0 : it->second;
  }

 private:
  std::unordered_map<char32_t, u8> classes_;
};

int combining_class(char32_t c) {
  static const CombiningClasses classes;
  return classes(c);
}

// Hangul syllables are made of 19 leading consonants, 21 vowels and 27 trailing consonants, or none, by computation.
constexpr char32_t kSyllable = 0xAC00, kLeading = 0x1100, kVowel = 0x1161, kTrailing = 0x11A7;  // trailing 0 stands for none
constexpr char32_t kLeadings = 19, kVowels = 21, kTrailings = 28, kSyllables = kLeadings * kVowels * kTrailings;

void decompose(char32_t c, bool compatible, Text& out) {
  static const Mapping canonical(kCanonical), others(kCompatible);
  if (c < 0x80) {
    out.push_back(c);
  } else if (const char32_t s = c - kSyllable; s < kSyllables) {
    out.push_back(kLeading + s / (kVowels * kTrailings));
    out.push_back(kVowel + s / kTrailings % kVowels);
    if (s % kTrailings) out.push_back(kTrailing + s % kTrailings);
  } else if (!(compatible && others.append(out, c)) && !canonical.append(out, c)) {
    out.push_back(c);
  }
}

// Each run of combining marks by class, those of the same class as they stand.
void order_marks(Text& text) {
  for (size_t begin = 0; begin < text.size(); ++begin) {
    size_t end = begin;
    while (end < text.size() && combining_class(text[end])) ++end;
    if (end - begin < 2) continue;
    std::stable_sort(text.begin() + static_cast<std::ptrdiff_t>(begin), text.begin() + static_cast<std::ptrdiff_t>(end),
                     [](char32_t a, char32_t b) { return combining_class(a) < combining_class(b); });
    begin = end;
  }
}

char32_t composition(char32_t a, char32_t b) {  // 0: there is none
  static const std::unordered_map<u64, char32_t> pairs = [] {
    std::unordered_map<u64, char32_t> all;
    for (const auto& [first, second, whole] : kCompositions) all[static_cast<u64>(first) << 32 | second] = whole;
    return all;
  }();
  if (a - kLeading < kLeadings && b - kVowel < kVowels) {
    return kSyllable + ((a - kLeading) * kVowels + b - kVowel) * kTrailings;
  }
  if (a - kSyllable < kSyllables && (a - kSyllable) % kTrailings == 0 && b > kTrailing && b - kTrailing < kTrailings) {
    return a + b - kTrailing;
  }
  const auto it = pairs.find(static_cast<u64>(a) << 32 | b);
  return it == pairs.end() ? 0 : it->second;
}

// Each character joins the last one of class 0, unless one between them is of the same class or of a higher one.
void compose(Text& text) {
  size_t size = 0, starter = 0;
  bool started = false;
  int before = -1;  // class of the character before, if that is not the starter
  for (const char32_t c : text) {
    const int own = combining_class(c);
    if (started && before < own) {
      if (const char32_t whole = composition(text[starter], c)) {
        text[starter] = whole;
        continue;
      }
    }
    if (own == 0) started = true, starter = size, before = -1;
    else before = own;
    text[size++] = c;
  }
  text.resize(size);
}

bool is_ascii(const std::string& text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<u8>(c) < 0x80; });
}

bool starts_in(const std::string& text, const CodeSet& set) {
  size_t at = 0;
  return !text.empty() && set.contains(next_code_point(text, at));
}

// Appends to the characters of the result what `change` makes of each character of the text.
template <class Change>
Text changed(std::string_view text, Change&& change) {
  Text out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) change(next_code_point(text, at), out);
  return out;
}

void assign(std::string& text, const Text& characters) {
  text.clear();
  for (const char32_t c : characters) append_utf8(text, c);
}

}  // namespace

void to_normal_form(std::string& text, NormalForm form) {
  if (is_ascii(text)) return;
  const bool compatible = form == NormalForm::nfkc || form == NormalForm::nfkd;
  Text all = changed(text, [&](char32_t c, Text& out) { decompose(c, compatible, out); });
  order_marks(all);
  if (form == NormalForm::nfc || form == NormalForm::nfkc) compose(all);
  assign(text, all);
}

void to_lower_case(std::string& text) {
  static const Mapping lower(kLower);
  assign(text, changed(text, [](char32_t c, Text& out) {
    if (!lower.append(out, c)) out.push_back(c);
  }));
}

bool strip_accents(std::string& text) {
  static const CodeSet accents(std::vector<CodeRange>(std::begin(kAccents), std::end(kAccents)));
  if (is_ascii(text)) return false;
  const bool first = starts_in(text, accents);
  assign(text, changed(text, [](char32_t c, Text& out) {
    if (!accents.contains(c)) out.push_back(c);
  }));
  return first;
}

bool clean_white_space(std::string& text) {
  static const CodeSet removed(std::vector<CodeRange>(std::begin(kNmtRemoved), std::end(kNmtRemoved)));
  static const CodeSet spaces(std::vector<CodeRange>(std::begin(kNmtSpaces), std::end(kNmtSpaces)));
  const bool first = starts_in(text, removed);
  assign(text, changed(text, [](char32_t c, Text& out) {
    if (!removed.contains(c)) out.push_back(spaces.contains(c) ? ' ' : c);
  }));
  return first;
}

}  // namespace signround
