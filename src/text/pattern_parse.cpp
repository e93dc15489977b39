#include "text/pattern_parse.h"

#include <algorithm>

#include "text/properties.h"
#include "text/unsupported.h"

namespace signround {
namespace {

using Kind = PatternNode::Kind;

bool is_digit(char32_t c) { return c >= '0' && c <= '9'; }
bool is_letter(char32_t c) { return (c | 0x20) >= 'a' && (c | 0x20) <= 'z'; }

CodeSet one(char32_t c) { return CodeSet({{c, c}}); }

PatternNode of_set(CodeSet set) { return {Kind::set, std::move(set), {}, 0, 0}; }
PatternNode ahead(CodeSet set, bool at_end) { return {Kind::ahead, std::move(set), {}, 0, 0, at_end}; }

// With the other case of its ASCII letters. Two letters have a third form: U+017F is a long s, U+212A the Kelvin sign.
CodeSet case_folded(const CodeSet& set) {
  CodeSet folded = set;
  for (char32_t c = 'a'; c <= 'z'; ++c) {
    if (!set.contains(c) && !set.contains(c - 0x20)) continue;
    folded = folded | one(c) | one(c - 0x20);
    if (c == 's') folded = folded | one(0x17F);
    if (c == 'k') folded = folded | one(0x212A);
  }
  return folded;
}

class Parser {
 public:
  explicit Parser(std::string_view source) : source_(source) {}

  PatternNode parse() {
    PatternNode all = alternatives(false);
    if (at_ < source_.size()) refuse("unmatched ')'", at_);
    return all;
  }

 private:
  static constexpr int kMaxDepth = 32, kMaxRepeat = 1000;

  [[noreturn]] void refuse(std::string_view what, size_t offset) const {
    unsupported("pattern \"", source_, "\", offset ", offset, ": ", what);
  }

  bool done() const { return at_ >= source_.size(); }
  char peek() const { return done() ? '\0' : source_[at_]; }
  bool take(std::string_view text) {
    if (!source_.substr(at_).starts_with(text)) return false;
    at_ += text.size();
    return true;
  }
  char32_t take_character(std::string_view what) {
    if (done()) refuse(what, at_);
    return next_code_point(source_, at_);
  }

  PatternNode alternatives(bool fold) {
    if (++depth_ > kMaxDepth) refuse("nesting this deep", at_);
    PatternNode all{Kind::alternatives, {}, {}, 0, 0};
    fold = take("(?i)") || fold;
    do all.children.push_back(sequence(fold));
    while (take("|"));
    --depth_;
    return all.children.size() == 1 ? std::move(all.children[0]) : all;
  }

  PatternNode sequence(bool fold) {
    PatternNode all;
    char32_t before = 0;  // the literal letter before, for multi-character foldings
    while (!done() && peek() != '|' && peek() != ')') {
      const size_t start = at_;
      const char32_t letter = is_letter(static_cast<u8>(peek())) ? static_cast<char32_t>(peek() | 0x20) : 0;
      PatternNode item = atom(fold);
      if (fold && before && letter) {
        // Unicode folds one character to these two letters (ß to ss, and ligatures), which a set cannot express.
        for (const std::string_view pair : {"ss", "st", "ff", "fi", "fl"}) {
          if (before == static_cast<u8>(pair[0]) && letter == static_cast<u8>(pair[1])) {
            refuse(cat("case-insensitive \"", pair, "\""), start);
          }
        }
      }
      before = letter;
      all.children.push_back(quantified(std::move(item)));
    }
    return all.children.size() == 1 ? std::move(all.children[0]) : all;
  }

  PatternNode quantified(PatternNode item) {
    const size_t start = at_;
    int min = 0, max = 0;
    if (take("?")) {
      max = 1;
    } else if (take("*")) {
      max = PatternNode::kUnlimited;
    } else if (take("+")) {
      min = 1, max = PatternNode::kUnlimited;
    } else if (take("{")) {
      bool given = is_digit(static_cast<u8>(peek()));
      if (given) min = max = number(start);
      if (take(",")) {
        max = PatternNode::kUnlimited;
        if (is_digit(static_cast<u8>(peek()))) max = number(start), given = true;
      }
      if (!given || !take("}") || (max != PatternNode::kUnlimited && max < min)) refuse("this brace", start);
    } else {
      return item;
    }
    if (item.kind == Kind::ahead) refuse("a repeated lookahead", start);
    const bool braces = source_[at_ - 1] == '}';
    if (braces && min <= 1 && item.kind == Kind::set && take("+")) max = PatternNode::kUnlimited;  // (x{1,3})+: any number
    const bool possessive = !braces && take("+");
    if (possessive && item.kind != Kind::set) refuse("a possessive repetition of more than one character", start);
    if (take("?") || take("+") || take("*") || take("{")) refuse("a lazy or double repetition", start);
    const CodeSet others = possessive ? ~item.set : CodeSet();
    PatternNode repeat{Kind::repeat, {}, {}, min, max};
    repeat.children.push_back(std::move(item));
    return possessive ? all_of(std::move(repeat), others) : repeat;
  }

  // Gives nothing back: what was not taken is not of the set, or (x?+) one was taken.
  static PatternNode all_of(PatternNode repeat, const CodeSet& others) {
    const bool once = repeat.max == 1;
    PatternNode all{once ? Kind::alternatives : Kind::sequence, {}, {}, 0, 0};
    all.children.push_back(once ? std::move(repeat.children[0]) : std::move(repeat));
    all.children.push_back(ahead(others, true));
    return all;
  }

  int number(size_t start) {
    int n = 0;
    while (is_digit(static_cast<u8>(peek()))) {
      n = n * 10 + (source_[at_++] - '0');
      if (n > kMaxRepeat) refuse("a repetition of more than 1000 times", start);
    }
    return n;
  }

  PatternNode atom(bool fold) {
    const size_t start = at_;
    if (take("(")) return group(fold, start);
    if (take("[")) return of_set(bracket(fold, start));
    if (take("\\w")) return of_set(lone_regex_word_characters());
    if (take("\\W")) return of_set(~lone_regex_word_characters());
    if (peek() == '\\') return of_set(escape(fold));
    if (take(".")) return of_set(~one('\n'));
    if (take("$")) return ahead(one('\n'), true);
    const char32_t c = take_character("an empty atom");
    if (std::u32string_view(U"^*+?{").find(c) != std::u32string_view::npos) refuse(cat("'", utf8(c), "' here"), start);
    return of_set(literal(c, fold, start));
  }

  PatternNode group(bool fold, size_t start) {
    PatternNode inside;
    if (const bool not_this = take("?!"); not_this || take("?=")) {
      inside = alternatives(fold);
      if (inside.kind != Kind::set) refuse("a lookahead longer than one character", start);
      inside = ahead(not_this ? ~inside.set : inside.set, not_this);
    } else if (take("?i:")) {
      inside = alternatives(true);
    } else if (take("?:")) {
      inside = alternatives(fold);
    } else if (peek() == '?') {
      refuse(cat("the group \"", source_.substr(start, 4), "\""), start);
    } else {
      inside = alternatives(fold);
    }
    if (!take(")")) refuse("an unclosed group", start);
    return inside;
  }

  CodeSet literal(char32_t c, bool fold, size_t start) const {
    if (!fold) return one(c);
    if (c >= 0x80) refuse(cat("case-insensitive '", utf8(c), "'"), start);
    return case_folded(one(c));
  }

  // After "[". "&&" binds less than everything else in a class, but for "^".
  CodeSet bracket(bool fold, size_t start) {
    if (++depth_ > kMaxDepth) refuse("nesting this deep", start);
    const bool negated = take("^");
    if (peek() == ']') refuse("']' first in a class", at_);
    if (peek() == ':') refuse("\"[:\"", start);
    CodeSet all = ~CodeSet(), part;
    while (!take("]")) {
      if (done()) refuse("an unclosed class", start);
      if (take("&&")) {
        all = all & part;
        part = CodeSet();
      } else {
        part = part | class_item(fold);
      }
    }
    --depth_;
    all = all & part;
    return negated ? ~all : all;
  }

  CodeSet class_item(bool fold) {
    const size_t start = at_;
    if (take("[")) return bracket(fold, start);
    const auto character = [&] { return peek() == '\\' ? escape(false) : one(take_character("an unclosed class")); };
    CodeSet set = character();
    if (peek() == '-' && at_ + 1 < source_.size() && source_[at_ + 1] != ']') {
      ++at_;
      if (peek() == '[') refuse("a range that ends in a class", at_);
      const char32_t first = single(set, start), last = single(character(), start);
      if (last < first) refuse("a range that runs backwards", start);
      set = CodeSet({{first, last}});
    }
    if (!fold) return set;
    if (set.ranges().back().last >= 0x80) refuse("a case-insensitive class beyond ASCII", start);
    return case_folded(set);
  }

  char32_t single(const CodeSet& set, size_t offset) const {
    if (set.ranges().size() != 1 || set.ranges()[0].first != set.ranges()[0].last) refuse("a range between classes", offset);
    return set.ranges()[0].first;
  }

  // At a backslash: never an empty set.
  CodeSet escape(bool fold) {
    const size_t start = at_++;
    const char32_t c = take_character("a lone backslash");
    switch (c) {
      case 'r': return one('\r');
      case 'n': return one('\n');
      case 't': return one('\t');
      case 'v': return one('\v');
      case 'f': return one('\f');
      case 's': return white_space();
      case 'S': return ~white_space();
      case 'd': return code_points_of("Nd");
      case 'D': return ~code_points_of("Nd");
      case 'w': return regex_word_characters();
      case 'W': return ~regex_word_characters();
      case 'u': return literal(hexadecimal(4, start), fold, start);
      case 'x': {
        const size_t end = source_.find('}', at_);
        const bool given = take("{") && end != std::string_view::npos && at_ < end && end <= at_ + 6;
        if (!given) refuse("a \\x without {code point}", start);
        const char32_t value = hexadecimal(static_cast<int>(end - at_), start);
        if (!take("}") || value > kMaxCodePoint) refuse("a \\x without {code point}", start);
        return literal(value, fold, start);
      }
      case 'p':
      case 'P': {
        if (fold) refuse("a property in a case-insensitive group", start);
        const size_t end = source_.find('}', at_);
        if (!take("{") || end == std::string_view::npos) refuse("a property without braces", start);
        const CodeSet set = code_points_with(source_.substr(at_, end - at_));
        at_ = end + 1;
        if (set.ranges().empty()) refuse(source_.substr(start, at_ - start), start);
        return c == 'p' ? set : ~set;
      }
      default: break;
    }
    if (c >= 0x80 || is_letter(c) || is_digit(c)) refuse(source_.substr(start, at_ - start), start);
    return one(c);  // escaped punctuation stands for itself
  }

  char32_t hexadecimal(int digits, size_t start) {
    char32_t value = 0;
    for (int i = 0; i < digits; ++i) {
      const char32_t c = take_character("a short number"), lower = c | 0x20;
      if (!is_digit(c) && (lower < 'a' || lower > 'f')) refuse("what is no hexadecimal number", start);
      value = value * 16 + (is_digit(c) ? c - '0' : lower - 'a' + 10);
    }
    return value;
  }

  std::string_view source_;
  size_t at_ = 0;
  int depth_ = 0;
};

}  // namespace

PatternNode parse_pattern(std::string_view source) { return Parser(source).parse(); }

PatternNode literal_pattern(std::string_view text) {
  PatternNode all;
  for (size_t at = 0; at < text.size();) all.children.push_back(of_set(one(next_code_point(text, at))));
  return all;
}

}  // namespace signround
