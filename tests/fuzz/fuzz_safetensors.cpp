// Any bytes as a file: either an Error{bad_input} of one line, or tensors that fill the file exactly and have the sizes of their
// shapes.
#include <cstdlib>

#include "io/safetensors.h"

using namespace signround;

namespace {

void require(bool ok) {
  if (!ok) std::abort();
}

// Reading every tensor's bytes is what the sanitizers watch.
unsigned sum_of(std::span<const u8> bytes) {
  unsigned sum = 0;
  for (const u8 byte : bytes) sum += byte;
  return sum;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const u8* data, std::size_t size) {
  const std::span<const u8> file(data, size);
  try {
    const SafetensorsHeader header = parse_safetensors_header(file, size);
    u64 end = safetensors_head_size(file, size);
    unsigned sum = 0;
    for (const TensorInfo& tensor : header.tensors) {
      require(tensor.offset == end && !tensor.name.empty());
      end += tensor.bytes;
      require(end <= size);
      u64 bits = static_cast<u64>(bits_of(tensor.dtype));
      for (const i64 dim : tensor.shape) bits *= static_cast<u64>(dim);
      require(bits == 8 * tensor.bytes);
      sum += sum_of(file.subspan(tensor.offset, tensor.bytes));
    }
    require(end == size);
    require(sum <= 255u * size);
  } catch (const Error& e) {
    require(e.kind == ErrorKind::bad_input && e.message.find('\n') == std::string::npos);
  }
  return 0;
}
