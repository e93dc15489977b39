// The byte-level alphabet: every byte as one printable character. Bytes 21-7E, A1-AC and AE-FF stand for themselves, the other 68
// for U+0100, U+0101, ... in order; so a space is U+0120.
#pragma once
#include <string>
#include <string_view>

#include "base/dtype.h"

namespace signround {

void append_byte_symbol(std::string& out, u8 byte);
int byte_of_symbol(char32_t c);  // -1: not in the alphabet

}  // namespace signround
