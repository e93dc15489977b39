#include "text/grapheme.h"

#include "text/unicode.h"

namespace signround {
namespace {

#include "text/grapheme_tables.inc"

template <size_t N>
CodeSet set_of(const CodeRange (&ranges)[N]) {
  return CodeSet(std::vector<CodeRange>(ranges, ranges + N));
}

constexpr char32_t kZeroWidthJoiner = 0x200D;

// Parts of Hangul syllables: leading consonant, vowel, trailing consonant, and syllables without and with the last.
enum class Hangul { none, l, v, t, lv, lvt };

Hangul hangul(char32_t c) {
  if ((c >= 0x1100 && c <= 0x115F) || (c >= 0xA960 && c <= 0xA97C)) return Hangul::l;
  if ((c >= 0x1160 && c <= 0x11A7) || (c >= 0xD7B0 && c <= 0xD7C6)) return Hangul::v;
  if ((c >= 0x11A8 && c <= 0x11FF) || (c >= 0xD7CB && c <= 0xD7FB)) return Hangul::t;
  if (c >= 0xAC00 && c <= 0xD7A3) return (c - 0xAC00) % 28 == 0 ? Hangul::lv : Hangul::lvt;
  return Hangul::none;
}

bool one_syllable(Hangul a, Hangul b) {
  switch (a) {
    case Hangul::l: return b == Hangul::l || b == Hangul::v || b == Hangul::lv || b == Hangul::lvt;
    case Hangul::v:
    case Hangul::lv: return b == Hangul::v || b == Hangul::t;
    case Hangul::t:
    case Hangul::lvt: return b == Hangul::t;
    case Hangul::none: break;
  }
  return false;
}

}  // namespace

size_t grapheme_end(std::string_view text, size_t at) {
  static const CodeSet joins = set_of(kJoins), control = set_of(kControl), prepend = set_of(kPrepend),
                       pictographic = set_of(kPictographic);
  char32_t before = next_code_point(text, at);
  bool picture = pictographic.contains(before);  // a picture, and since then only what joins it
  for (size_t next = at; at < text.size(); at = next) {
    const char32_t c = next_code_point(text, next);
    if (c < 0x80 && before < 0x80 && !(before == '\r' && c == '\n')) break;
    if (before == '\r' && c == '\n') return next;
    if (control.contains(before) || control.contains(c)) break;
    const bool is_picture = pictographic.contains(c), extends = joins.contains(c);
    const bool together = extends || prepend.contains(before) || one_syllable(hangul(before), hangul(c)) ||
                          (picture && before == kZeroWidthJoiner && is_picture);
    if (!together) break;
    picture = is_picture || (picture && extends);
    before = c;
  }
  return at;
}

}  // namespace signround
