#include "text/byte_fallback.h"

#include "base/error.h"

namespace signround {

std::vector<i32> byte_fallback_ids(const Vocab& vocab) {
  constexpr std::string_view hex = "0123456789ABCDEF";
  std::vector<i32> ids;
  for (int byte = 0; byte < 256; ++byte) ids.push_back(vocab.find(cat("<0x", hex[byte / 16], hex[byte % 16], ">")).value_or(-1));
  return ids;
}

bool append_bytes(std::string_view text, const std::vector<i32>& byte_ids, std::vector<i32>& ids) {
  if (byte_ids.empty()) return false;
  const size_t count = ids.size();
  for (const char byte : text) {
    const i32 id = byte_ids[static_cast<u8>(byte)];
    if (id < 0) {
      ids.resize(count);
      return false;
    }
    ids.push_back(id);
  }
  return true;
}

}  // namespace signround
