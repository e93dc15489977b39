#include "export/model_writer.h"

#include <cstdio>

namespace signround {
namespace {

constexpr u64 kShardBytes = u64{5} << 30;  // as Hugging Face's writers cut them
constexpr u64 kCopyBytes = u64{64} << 20;  // a large tensor passes in pieces no larger than this... whole tensors below

u64 bytes_of(const TensorInfo& t) {
  u64 bits = static_cast<u64>(bits_of(t.dtype));
  for (i64 d : t.shape) bits *= static_cast<u64>(d);
  return bits / 8;
}

}  // namespace
}  // namespace signround
