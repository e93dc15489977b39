// SHA-256 (FIPS 180-4), and a digest of large buffers that all threads can work on.
#pragma once
#include <array>
#include <cstddef>
#include <span>
#include <string>

#include "base/dtype.h"

namespace signround {

class Sha256 {
 public:
  void update(std::span<const std::byte> bytes);
  std::array<u8, 32> finish();  // once, after the last update

 private:
  void block(const u8* bytes);

  std::array<u32, 8> state_ = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<u8, 64> buffer_;
  u64 bytes_ = 0;
};

std::string sha256_text(std::string_view content);  // 64 hexadecimal digits

// The SHA-256 of the SHA-256s of all pieces of 1 MiB (the last one shorter), as 64 hexadecimal digits.
std::string digest_of(std::span<const std::byte> bytes);

}  // namespace signround
