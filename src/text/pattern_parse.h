// The regular expressions found in tokenizer.json, as a tree. Only what such files use is understood; anything else is refused by
// name.
#pragma once
#include <string_view>
#include <vector>

#include "text/unicode.h"

namespace signround {

struct PatternNode {
  enum class Kind : u8 {
    set,           // one character of `set`
    sequence,      // the children one after another
    alternatives,  // the first child that leads to a match
    repeat,        // children[0], min to max times, as often as possible
    ahead,         // the next character is in `set`, or `at_end` and there is none; consumes nothing
  };
  static constexpr int kUnlimited = -1;

  Kind kind = Kind::sequence;
  CodeSet set;
  std::vector<PatternNode> children;
  int min = 0, max = 0;
  bool at_end = false;
};

// Understands: literals and escaped punctuation; \r \n \t \v \f \uXXXX \x{X}; . \s \S \d \D \w \W \p{..} \P{..}; [..] and
// [^..] with ranges of these, classes in them and &&; ? * + {n} {n,} {n,m}; ?+ *+ ++ {0,n}+ {1,n}+ after one character or class;
// | ; (..) (?:..), (?i:..) and a leading (?i) over ASCII; (?=x) and (?!x) with x a single character or class; $ as the end of a
// line.
// Error{bad_input} names the construct that it does not understand and its offset.
PatternNode parse_pattern(std::string_view source);

// The sequence of the characters of `text`, which is valid UTF-8.
PatternNode literal_pattern(std::string_view text);

}  // namespace signround
