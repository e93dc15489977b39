// Finds what a pattern matches, in time linear in the text: the pattern is compiled to a deterministic automaton over classes of
// characters when it is read, so that a match costs one table look-up per character and no stack, however long a run is.
#pragma once
#include <optional>
#include <string_view>
#include <vector>

#include "text/pattern_parse.h"

namespace signround {

class Pattern {
 public:
  struct Match {
    size_t begin, end;  // bytes; begin < end
  };

  // Error{bad_input}: a construct that is not understood, a pattern that matches the empty text, or one that is too large.
  static Pattern regex(std::string_view source) { return Pattern(parse_pattern(source), source); }
  static Pattern literal(std::string_view text) { return Pattern(literal_pattern(text), text); }
  static Pattern any_of(const CodeSet& set) { return Pattern({PatternNode::Kind::set, set, {}, 0, 0}, "one character"); }

  // The first match at or after byte `from`, which must begin a character. The text must be valid UTF-8. What counts is the order
  // of the alternatives, then greed, as in Perl, not the greatest length.
  std::optional<Match> find(std::string_view text, size_t from) const;

 private:
  Pattern(const PatternNode& root, std::string_view source);
  u32 class_of(char32_t c) const { return pages_[static_cast<size_t>(page_of_[c >> 8]) << 8 | (c & 0xFF)]; }
  size_t match_end(std::string_view text, size_t from) const;  // 0: none

  // Code point -> class: characters that no set of the pattern tells apart share a class.
  std::vector<u16> page_of_;  // [0x1100] by the upper bits; page 0 holds the lowest 256 code points
  std::vector<u8> pages_;     // [pages, 256]
  // [states, classes + 1] of next state * 2 + (a match ends before this character); the last column is the end of the text.
  // State 0 is dead, state 1 is the start.
  std::vector<u32> next_;
  u32 width_ = 0;
};

}  // namespace signround
