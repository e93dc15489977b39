// Any bytes: refused with bad_input, or a document that survives being written and read again.
#include <cstdlib>

#include "io/json.h"

using namespace signround;

extern "C" int LLVMFuzzerTestOneInput(const u8* data, size_t size) {
  Json json;
  try {
    json = parse_json({reinterpret_cast<const char*>(data), size});
  } catch (const Error& e) {
    if (e.kind != ErrorKind::bad_input) std::abort();
    return 0;
  }
  if (!(parse_json(to_text(json)) == json) || !(parse_json(to_text(json, 2)) == json)) std::abort();
  return 0;
}
