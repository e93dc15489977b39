#include "text/unicode.h"

#include <algorithm>

namespace signround {
namespace {

#include "text/unicode_tables.inc"

constexpr std::string_view kCategoryNames = "LuLlLtLmLoMnMcMeNdNlNoPcPdPsPePiPfPoSmScSkSoZsZlZpCcCfCsCoCn";

template <size_t N>
CodeSet set_of(const CodeRange (&ranges)[N]) {
  return CodeSet(std::vector<CodeRange>(ranges, ranges + N));
}

// Length of the valid UTF-8 character at the start of `text`; if there is none, minus the length of the broken part: the longest
// beginning of a valid character, at least one byte. `text` is not empty.
int character_length(std::string_view text) {
  const u8 lead = static_cast<u8>(text[0]);
  if (lead < 0x80) return 1;
  if (lead < 0xC2 || lead > 0xF4) return -1;
  const int length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  for (int i = 1; i < length; ++i) {
    if (static_cast<size_t>(i) == text.size()) return -i;
    const u8 byte = static_cast<u8>(text[i]);
    // The second byte alone decides about overlong forms, surrogates and the upper end.
    const u8 low = i > 1 ? 0x80 : lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
    const u8 high = i > 1 ? 0xBF : lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
    if (byte < low || byte > high) return -i;
  }
  return length;
}

}  // namespace

CodeSet::CodeSet(std::vector<CodeRange> ranges) {
  std::sort(ranges.begin(), ranges.end(), [](CodeRange a, CodeRange b) { return a.first < b.first; });
  for (const CodeRange& r : ranges) {
    if (!ranges_.empty() && r.first <= ranges_.back().last + 1) {
      ranges_.back().last = std::max(ranges_.back().last, r.last);
    } else {
      ranges_.push_back(r);
    }
  }
}

bool CodeSet::contains(char32_t c) const {
  const auto after = std::upper_bound(ranges_.begin(), ranges_.end(), c, [](char32_t x, CodeRange r) { return x < r.first; });
  return after != ranges_.begin() && c <= std::prev(after)->last;
}

CodeSet CodeSet::operator|(const CodeSet& other) const {
  std::vector<CodeRange> both = ranges_;
  both.insert(both.end(), other.ranges_.begin(), other.ranges_.end());
  return CodeSet(std::move(both));
}

CodeSet CodeSet::operator~() const {
  std::vector<CodeRange> gaps;
  char32_t next = 0;
  for (const CodeRange& r : ranges_) {
    if (r.first > next) gaps.push_back({next, r.first - 1});
    next = r.last + 1;
  }
  if (next <= kMaxCodePoint) gaps.push_back({next, kMaxCodePoint});
  return CodeSet(std::move(gaps));
}

CodeSet code_points_of(std::string_view name) {
  std::vector<CodeRange> found;
  if (name.empty()) return {};
  constexpr size_t count = std::size(kCategoryStarts);
  for (size_t i = 0; i < count; ++i) {
    const char32_t first = kCategoryStarts[i] / 32, end = i + 1 < count ? kCategoryStarts[i + 1] / 32 : kMaxCodePoint + 1;
    if (kCategoryNames.substr(kCategoryStarts[i] % 32 * 2, 2).starts_with(name)) found.push_back({first, end - 1});
  }
  return CodeSet(std::move(found));
}

const CodeSet& white_space() {
  static const CodeSet set = set_of(kWhiteSpace);
  return set;
}

const CodeSet& word_characters() {
  static const CodeSet set = code_points_of("L") | code_points_of("M") | code_points_of("Nd") | code_points_of("Nl") |
                             code_points_of("Pc") | set_of(kOtherWord);
  return set;
}

const CodeSet& digit_characters() {
  static const CodeSet set = code_points_of("N") | set_of(kOtherDigits);
  return set;
}

const CodeSet& punctuation_characters() {
  static const CodeSet set = set_of(kPunctuation);
  return set;
}

i64 first_invalid_utf8(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    const int length = character_length(text.substr(at));
    if (length < 0) return static_cast<i64>(at);
    at += static_cast<size_t>(length);
  }
  return -1;
}

char32_t previous_code_point(std::string_view text, size_t& at) {
  do --at;
  while ((static_cast<u8>(text[at]) & 0xC0) == 0x80);
  size_t begin = at;
  return next_code_point(text, begin);
}

void append_utf8(std::string& out, char32_t c) {
  const auto put = [&](u32 byte) { out.push_back(static_cast<char>(byte)); };
  if (c < 0x80) {
    put(c);
  } else if (c < 0x800) {
    put(0xC0 | c >> 6), put(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    put(0xE0 | c >> 12), put(0x80 | (c >> 6 & 0x3F)), put(0x80 | (c & 0x3F));
  } else {
    put(0xF0 | c >> 18), put(0x80 | (c >> 12 & 0x3F)), put(0x80 | (c >> 6 & 0x3F)), put(0x80 | (c & 0x3F));
  }
}

std::string utf8(char32_t c) {
  std::string out;
  append_utf8(out, c);
  return out;
}

std::string to_utf8_lossy(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size());
  for (size_t at = 0; at < bytes.size();) {
    const int length = character_length(bytes.substr(at));
    if (length > 0) {
      out += bytes.substr(at, static_cast<size_t>(length));
    } else {
      append_utf8(out, 0xFFFD);
    }
    at += static_cast<size_t>(std::abs(length));
  }
  return out;
}

}  // namespace signround
