// Unicode as the tokenizers library sees it: UTF-8, general categories, and sets of code points. The tables behind it are
// generated.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "base/dtype.h"

namespace signround {

inline constexpr char32_t kMaxCodePoint = 0x10FFFF;

// The general categories, in the order of the generated table.
enum class Category : u8 {
  Lu, Ll, Lt, Lm, Lo, Mn, Mc, Me, Nd, Nl, No, Pc, Pd, Ps, Pe, Pi, Pf, Po, Sm, Sc, Sk, So, Zs, Zl, Zp, Cc, Cf, Cs, Co, Cn,
};

// A set of code points as sorted, disjoint, not adjacent ranges.
struct CodeRange {
  char32_t first, last;
  bool operator==(const CodeRange&) const = default;
};
class CodeSet {
 public:
  CodeSet() = default;
  explicit CodeSet(std::vector<CodeRange> ranges);  // in any order, may overlap

  const std::vector<CodeRange>& ranges() const { return ranges_; }
  bool contains(char32_t c) const;
  CodeSet operator|(const CodeSet& other) const;
  CodeSet operator&(const CodeSet& other) const { return ~(~*this | ~other); }
  CodeSet operator~() const;
  bool operator==(const CodeSet&) const = default;

 private:
  std::vector<CodeRange> ranges_;
};

// All code points of the categories whose name starts with `name` ("L", "Lu", ...); empty if there is no such category.
CodeSet code_points_of(std::string_view name);
const CodeSet& white_space();                 // \s, the property White_Space
const CodeSet& word_characters();             // \w: what counts as part of a word beside a `single_word` token
const CodeSet& digit_characters();            // what the pre-tokenizer Digits isolates
const CodeSet& punctuation_characters();      // what the pre-tokenizer Punctuation isolates

// Strict UTF-8 (no overlong forms, no surrogates, nothing past U+10FFFF): the offset of the first byte that is not, or -1.
i64 first_invalid_utf8(std::string_view text);

// Decodes the character at text[at] and advances `at` past it. The text must be valid UTF-8 and at < text.size().
inline char32_t next_code_point(std::string_view text, size_t& at) {
  const u8 lead = static_cast<u8>(text[at++]);
  if (lead < 0x80) return lead;
  const int more = lead < 0xE0 ? 1 : lead < 0xF0 ? 2 : 3;
  char32_t c = lead & (0x3Fu >> more);
  for (int i = 0; i < more; ++i) c = c << 6 | (static_cast<u8>(text[at++]) & 0x3Fu);
  return c;
}
// The character that ends at `at` > 0; moves `at` back to its first byte.
char32_t previous_code_point(std::string_view text, size_t& at);

void append_utf8(std::string& out, char32_t c);
std::string utf8(char32_t c);
std::string to_utf8_lossy(std::string_view bytes);  // each maximal broken part becomes one U+FFFD, as Unicode recommends

}  // namespace signround
