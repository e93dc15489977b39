// A pattern, a NUL, a text: refused with bad_input, or matches that follow one another inside the text.
#include <algorithm>
#include <cstdlib>

#include "base/error.h"
#include "text/pattern.h"
#include "text/unicode.h"

using namespace signround;

extern "C" int LLVMFuzzerTestOneInput(const u8* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t cut = std::min(input.find('\0'), size);
  const std::string_view text = input.substr(std::min(cut + 1, size));
  if (first_invalid_utf8(input) >= 0) return 0;  // pattern and text reach it as valid UTF-8
  try {
    const Pattern pattern = Pattern::regex(input.substr(0, cut));
    for (size_t at = 0; at < text.size();) {
      const auto match = pattern.find(text, at);
      if (!match) break;
      if (match->begin < at || match->end <= match->begin || match->end > text.size()) std::abort();
      at = match->end;
    }
  } catch (const Error& e) {
    if (e.kind != ErrorKind::bad_input) std::abort();
  }
  return 0;
}
