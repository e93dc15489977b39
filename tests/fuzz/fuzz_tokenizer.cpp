// tokenizer.json, a NUL, a text; or a text alone. The file is refused with bad_input, or gives ids inside the vocabulary, whose
// decoding is UTF-8; and byte-level BPE gives every text back.
#include <cstdlib>

#include "text/byte_level.h"
#include "text/tokenizer.h"
#include "text/unicode.h"

using namespace signround;

namespace {

Tokenizer byte_level() {
  Json vocab = Json::object({}), merges = Json::array({});
  const auto symbol = [](int byte) {
    std::string s;
    append_byte_symbol(s, static_cast<u8>(byte));
    return s;
  };
  for (int byte = 0; byte < 256; ++byte) vocab.set(symbol(byte), byte);
  for (const std::string_view pair : {"aa", " a", "  ", "\n\n", "\xC3\xA9"}) {
    const std::string left = symbol(static_cast<u8>(pair[0])), right = symbol(static_cast<u8>(pair[1]));
    vocab.set(left + right, vocab.object().size());
    merges.push(Json::array({left, right}));
  }
  Json root = Json::object({{"model", Json::object({{"type", "BPE"}, {"vocab", vocab}, {"merges", merges}})}});
  root.set("pre_tokenizer", Json::object({{"type", "ByteLevel"}, {"add_prefix_space", false}}));
  root.set("decoder", Json::object({{"type", "ByteLevel"}}));
  root.set("added_tokens", Json::array({Json::object({{"id", 0}, {"content", "<s>"}, {"single_word", true}, {"lstrip", false},
                                                      {"rstrip", false}, {"normalized", false}, {"special", true}})}));
  return Tokenizer(to_text(root));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const u8* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t end = input.find('\0');
  const std::string text = to_utf8_lossy(end == input.npos ? input : input.substr(end + 1));
  static const Tokenizer reference = byte_level();
  if (reference.decode(reference.encode(text, true), false) != text) std::abort();
  if (end == input.npos) return 0;
  try {
    const Tokenizer tokenizer(input.substr(0, end));
    const std::vector<i32> ids = tokenizer.encode(text, true);
    for (const i32 id : ids) {
      if (id < 0 || id >= tokenizer.vocab_size()) std::abort();
    }
    if (first_invalid_utf8(tokenizer.decode(ids, true)) >= 0) std::abort();
  } catch (const Error& e) {
    if (e.kind != ErrorKind::bad_input) std::abort();
  }
  return 0;
}
