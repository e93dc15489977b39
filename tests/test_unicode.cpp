#include "text/unicode.h"

#include <doctest/doctest.h>

#include "scratch.h"
#include "text/byte_level.h"

using namespace signround;

namespace {

i64 size_of(const CodeSet& set) {
  i64 n = 0;
  for (const CodeRange& r : set.ranges()) n += r.last - r.first + 1;
  return n;
}

std::string bytes(std::initializer_list<int> values) {
  std::string s;
  for (const int v : values) s.push_back(static_cast<char>(v));
  return s;
}

}  // namespace

TEST_CASE("unicode: every code point has the category that tokenizers 0.23.3 gives it") {
  constexpr std::string_view names = "LuLlLtLmLoMnMcMeNdNlNoPcPdPsPePiPfPoSmScSkSoZsZlZpCcCfCsCoCn";
  std::vector<u8> category(kMaxCodePoint + 1, 255);
  for (size_t i = 0; i < names.size() / 2; ++i) {
    const CodeSet set = code_points_of(names.substr(2 * i, 2));
    for (const CodeRange& r : set.ranges()) {
      for (char32_t c = r.first; c <= r.last; ++c) category[c] = static_cast<u8>(i);
    }
  }
  u32 hash = 2166136261u;  // FNV-1a
  for (const u8 c : category) hash = (hash ^ c) * 16777619u;
  CHECK(hash == 700431665u);
  CHECK(size_of(code_points_of("L")) == 141028);
  CHECK(size_of(code_points_of("N")) == 1911);
  CHECK(size_of(code_points_of("M")) == 2501);
  CHECK(size_of(code_points_of("")) == 0);
  CHECK(size_of(code_points_of("Letter")) == 0);
}

TEST_CASE("unicode: white space is the property White_Space, which isspace() is not") {
  CHECK(size_of(white_space()) == 25);
  const CodeSet listed({{0x09, 0x0D}, {0x20, 0x20}, {0x85, 0x85}, {0xA0, 0xA0}, {0x1680, 0x1680}, {0x2000, 0x200A},
                        {0x2028, 0x2029}, {0x202F, 0x202F}, {0x205F, 0x205F}, {0x3000, 0x3000}});
  CHECK(white_space() == listed);
  for (const char32_t c : {0x1C, 0x1D, 0x1E, 0x1F, 0x180E, 0x200B, 0xFEFF}) CHECK_FALSE(white_space().contains(c));
}

TEST_CASE("unicode: the sets that are no category") {
  CHECK(size_of(word_characters()) == 144667);
  CHECK(word_characters().contains('_'));
  CHECK(word_characters().contains(0x200D));
  CHECK_FALSE(word_characters().contains('-'));
  CHECK(size_of(digit_characters()) == 1924);
  CHECK(size_of(punctuation_characters()) == 726);
  CHECK(punctuation_characters().contains('$'));
}

TEST_CASE("unicode: sets of code points") {
  const CodeSet set({{5, 9}, {1, 2}, {3, 3}, {8, 12}});
  CHECK(set.ranges() == std::vector<CodeRange>{{1, 3}, {5, 12}});
  CHECK((~set).ranges() == std::vector<CodeRange>{{0, 0}, {4, 4}, {13, kMaxCodePoint}});
  CHECK(~~set == set);
  CHECK(size_of(set | ~set) == kMaxCodePoint + 1);
  CHECK((~CodeSet()).ranges() == std::vector<CodeRange>{{0, kMaxCodePoint}});
  for (const char32_t c : {1, 3, 5, 12}) CHECK(set.contains(c));
  for (const char32_t c : {0, 4, 13}) CHECK_FALSE(set.contains(c));
}

TEST_CASE("unicode: UTF-8 there and back, forwards and backwards, for every code point") {
  for (char32_t c = 0; c <= kMaxCodePoint; ++c) {
    const std::string text = utf8(c);
    size_t forwards = 0, backwards = text.size();
    bool same = next_code_point(text, forwards) == c && forwards == text.size();
    same = same && previous_code_point(text, backwards) == c && backwards == 0;
    same = same && (first_invalid_utf8(text) < 0) == (c < 0xD800 || c > 0xDFFF);
    if (!same) FAIL("U+", c);
  }
}

TEST_CASE("unicode: what is not UTF-8, where, and what is shown instead") {
  struct Row {
    std::string text;
    i64 offset;
    std::string shown;  // '?' for U+FFFD; as Python's bytes.decode(errors="replace")
  };
  const Row rows[] = {
      {"", -1, ""},
      {"aé", -1, "aé"},
      {bytes({0xFF}), 0, "?"},
      {bytes({'a', 0x80, 'b'}), 1, "a?b"},
      {bytes({0xC0, 0x80}), 0, "??"},                    // overlong
      {bytes({0xE0, 0x80, 0x80}), 0, "???"},             // overlong
      {bytes({0xF0, 0x8F, 0xBF, 0xBF}), 0, "????"},      // overlong
      {bytes({0xED, 0xA0, 0x80}), 0, "???"},             // surrogate
      {bytes({0xF4, 0x90, 0x80, 0x80}), 0, "????"},      // past U+10FFFF
      {bytes({0xF5, 'a'}), 0, "?a"},
      {bytes({'a', 0xE2, 0x82}), 1, "a?"},               // cut short
      {bytes({0xF0, 0x9F, 0x91, 'x'}), 0, "?x"},
      {bytes({0xE2, 0x82, 0xE2, 0x82, 0xAC}), 0, "?€"},
      {bytes({0xC3, 0xC3, 0xA9}), 0, "?é"},
  };
  for (const Row& row : rows) {
    CHECK(first_invalid_utf8(row.text) == row.offset);
    std::string shown;
    for (const char c : row.shown) shown += c == '?' ? "\xEF\xBF\xBD" : std::string(1, c);
    CHECK(to_utf8_lossy(row.text) == shown);
  }
}

TEST_CASE("unicode: the byte-level alphabet") {
  std::string all;
  for (int b = 0; b < 256; ++b) {
    const size_t start = all.size();
    append_byte_symbol(all, static_cast<u8>(b));
    size_t at = start;
    CHECK(byte_of_symbol(next_code_point(all, at)) == b);
  }
  CHECK(all.starts_with("ĀāĂ"));
  CHECK(contains(all, "Ġ!\"#"));
  CHECK(contains(all, "¬Ń®"));
  CHECK(byte_of_symbol(' ') == -1);
  CHECK(byte_of_symbol(0x144) == -1);
  CHECK(byte_of_symbol(kMaxCodePoint) == -1);
}
