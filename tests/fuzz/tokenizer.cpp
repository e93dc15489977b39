// tokenizer.json, a NUL, a text: refused with bad_input, or ids inside the vocabulary, whose decoding is refused neither.
#include <cstdlib>

#include "text/tokenizer.h"

using namespace signround;

extern "C" int LLVMFuzzerTestOneInput(const u8* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t cut = std::min(input.find('\0'), size);
  try {
    const Tokenizer tokenizer(input.substr(0, cut));
    const std::vector<i32> ids = tokenizer.encode(input.substr(std::min(cut + 1, size)), true);
    for (const i32 id : ids)
      if (id < 0 || id >= tokenizer.vocab_size()) std::abort();
    tokenizer.decode(ids, false);
  } catch (const Error& e) {
    if (e.kind != ErrorKind::bad_input) std::abort();
  }
  return 0;
}
