#include "text/charsmap.h"

#include "base/error.h"
#include "text/grapheme.h"
#include "text/unicode.h"

namespace signround {
namespace {

constexpr size_t kMaxGroup = 5;  // bytes of a group that is looked up as a whole

std::string decode_base64(std::string_view text) {
  constexpr std::string_view digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  check(text.size() % 4 == 0, ErrorKind::bad_input, "precompiled_charsmap: base64 of ", text.size(), " characters");
  const size_t padding = text.ends_with("==") ? 2 : text.ends_with("=") ? 1 : 0;
  std::string bytes;
  u32 bits = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const size_t digit = i + padding < text.size() ? digits.find(text[i]) : 0;
    check(digit != digits.npos, ErrorKind::bad_input, "precompiled_charsmap: character ", i, " is not base64");
    bits = bits << 6 | static_cast<u32>(digit);
    if (i % 4 == 3) {
      for (const int shift : {16, 8, 0}) bytes.push_back(static_cast<char>(bits >> shift & 0xFF));
    }
  }
  bytes.resize(bytes.size() - padding);
  return bytes;
}

u32 little_endian(std::string_view bytes) {
  u32 value = 0;
  for (size_t i = 4; i-- > 0;) value = value << 8 | static_cast<u8>(bytes[i]);
  return value;
}

// Parts of a unit. The offset has 21 bits, or 21 bits in steps of 256.
u32 label(u32 unit) { return unit & (1u << 31 | 0xFF); }
u32 offset(u32 unit) { return unit >> 10 << ((unit & 1u << 9) >> 6); }
bool ends_key(u32 unit) { return unit >> 8 & 1; }

}  // namespace

// The length of the double array in bytes, the array, the values.
Charsmap::Charsmap(std::string_view base64) {
  const std::string all = decode_base64(base64);
  check(all.size() >= 4, ErrorKind::bad_input, "precompiled_charsmap is cut short");
  std::string_view left = std::string_view(all).substr(4);
  const size_t size = little_endian(all);
  check(size <= left.size() && size % 4 == 0 && size > 0, ErrorKind::bad_input, "precompiled_charsmap: an array of ", size,
        " bytes in ", left.size());
  for (size_t at = 0; at < size; at += 4) units_.push_back(little_endian(left.substr(at, 4)));
  values_ = left.substr(size);
  check(first_invalid_utf8(values_) < 0, ErrorKind::bad_input, "precompiled_charsmap: its strings are not UTF-8");
}

u32 Charsmap::unit(size_t at) const {
  check(at < units_.size(), ErrorKind::bad_input, "precompiled_charsmap: no unit ", at, " among ", units_.size());
  return units_[at];
}

std::optional<std::string_view> Charsmap::value_of(std::string_view text) const {
  size_t at = offset(units_[0]);
  for (const char c : text) {
    const u8 byte = static_cast<u8>(c);
    if (byte == 0) break;
    at ^= byte;
    const u32 node = unit(at);
    if (label(node) != byte) break;
    at ^= offset(node);
    if (!ends_key(node)) continue;
    const size_t begin = unit(at) & ~(1u << 31);
    const bool starts = begin <= values_.size() && (begin == values_.size() || (static_cast<u8>(values_[begin]) & 0xC0) != 0x80);
    check(starts, ErrorKind::bad_input, "precompiled_charsmap: no string at ", begin);
    return std::string_view(values_).substr(begin, values_.find('\0', begin) - begin);
  }
  return std::nullopt;
}

void Charsmap::apply(std::string& text) const {
  std::string out;
  const std::string_view all = text;
  for (size_t at = 0, end = 0; at < all.size(); at = end) {
    end = grapheme_end(all, at);
    if (end - at <= kMaxGroup) {
      if (const auto value = value_of(all.substr(at, end - at))) {
        out += *value;
        continue;
      }
    }
    for (size_t next = at; at < end; at = next) {
      next_code_point(all, next);
      const std::string_view character = all.substr(at, next - at);
      out += value_of(character).value_or(character);
    }
  }
  text = std::move(out);
}

}  // namespace signround
