#include "text/byte_level.h"

#include <array>

#include "text/unicode.h"

namespace signround {
namespace {

struct Alphabet {
  std::array<std::string, 256> symbol;
  std::array<int, 256 + 68> byte;

  Alphabet() {
    byte.fill(-1);
    char32_t next = 0x100;
    for (int b = 0; b < 256; ++b) {
      const bool itself = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
      const char32_t c = itself ? static_cast<char32_t>(b) : next++;
      symbol[static_cast<size_t>(b)] = utf8(c);
      byte[c] = b;
    }
  }
};

const Alphabet& alphabet() {
  static const Alphabet a;
  return a;
}

}  // namespace

void append_byte_symbol(std::string& out, u8 byte) { out += alphabet().symbol[byte]; }

int byte_of_symbol(char32_t c) { return c < alphabet().byte.size() ? alphabet().byte[c] : -1; }

}  // namespace signround
