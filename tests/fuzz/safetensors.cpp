// Any bytes as a whole file: refused with bad_input, or tensors that lie inside the file without gap or overlap.
#include <cstdlib>

#include "io/safetensors.h"

using namespace signround;

extern "C" int LLVMFuzzerTestOneInput(const u8* data, size_t size) {
  try {
    u64 end = safetensors_head_size({data, size}, size);
    for (const TensorInfo& t : parse_safetensors_header({data, size}, size).tensors) {
      if (t.offset != end) std::abort();
      end += t.bytes;
    }
    if (end != size) std::abort();
  } catch (const Error& e) {
    if (e.kind != ErrorKind::bad_input) std::abort();
  }
  return 0;
}
