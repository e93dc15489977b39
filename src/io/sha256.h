// SHA-256 (FIPS 180-4), and a digest of large buffers that all threads can work on.
#pragma once
#include <array>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/dtype.h"

namespace signround {

class Sha256 {
 public:
  using State = std::array<u32, 8>;
  explicit Sha256(bool portable = false);  // without the processor's instructions for it, if it has any: the same, slower
  void update(std::span<const std::byte> bytes);
  std::array<u8, 32> finish();  // once, after the last update

 private:
  void (*compress_)(State& state, const u8* bytes, std::size_t blocks);
  State state_ = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<u8, 64> buffer_;
  u64 bytes_ = 0;
};

std::string sha256_text(std::string_view content);  // 64 hexadecimal digits

// The SHA-256 of the SHA-256s of all pieces of 1 MiB (the last one shorter).
class Digest {
 public:
  static constexpr i64 kPiece = i64{1} << 20;
  void update(std::span<const std::byte> bytes);  // whole pieces, but for the last call
  std::string text() const;                       // 64 hexadecimal digits

 private:
  std::vector<std::array<u8, 32>> pieces_;
};
std::string digest_of(std::span<const std::byte> bytes);

}  // namespace signround
