// The generator of Python's module `random`: the Mersenne Twister MT19937, seeded as random.seed(int) does, so that a peer's
// shuffles can be repeated number by number. Copying it copies its state.
#pragma once
#include <array>
#include <bit>
#include <span>
#include <utility>

#include "base/dtype.h"
#include "base/error.h"

namespace signround {

class PythonRandom {
 public:
  explicit PythonRandom(i64 seed) {  // as in Python, the sign of the seed does not count
    const u64 size = seed < 0 ? ~static_cast<u64>(seed) + 1 : static_cast<u64>(seed);
    const std::array<u32, 2> key = {static_cast<u32>(size), static_cast<u32>(size >> 32)};
    init_by_array(std::span(key).first(key[1] ? 2 : 1));
  }

  // k random bits, 1 <= k <= 64; the first draw gives the low ones.
  u64 bits(int k) {
    check(1 <= k && k <= 64, ErrorKind::bug, "asked for ", k, " random bits");
    if (k <= 32) return next() >> (32 - k);
    const u64 low = next();
    return low | static_cast<u64>(next() >> (64 - k)) << 32;
  }

  // Uniform in 0..n-1, n >= 1, by rejection.
  u64 below(u64 n) {
    check(n > 0, ErrorKind::bug, "asked for a random number below 0");
    const int k = static_cast<int>(std::bit_width(n));
    u64 r = bits(k);
    while (r >= n) r = bits(k);
    return r;
  }

  // Uniform in [0, 1), a multiple of 2^-53.
  double uniform() {
    const u32 a = next() >> 5, b = next() >> 6;
    return (a * 67108864.0 + b) / 9007199254740992.0;
  }

  template <class T>
  void shuffle(std::span<T> items) {
    for (size_t i = items.size(); i-- > 1;) std::swap(items[i], items[below(i + 1)]);
  }

 private:
  static constexpr size_t kSize = 624, kMiddle = 397;

  void init_by_array(std::span<const u32> key) {
    state_[0] = 19650218;
    for (u32 i = 1; i < kSize; ++i) state_[i] = 1812433253u * (state_[i - 1] ^ state_[i - 1] >> 30) + i;
    size_t i = 1;
    const auto advance = [&] {
      if (++i == kSize) state_[0] = state_[kSize - 1], i = 1;
    };
    for (size_t k = 0; k < kSize; ++k) {
      const size_t j = k % key.size();
      state_[i] = (state_[i] ^ (state_[i - 1] ^ state_[i - 1] >> 30) * 1664525u) + key[j] + static_cast<u32>(j);
      advance();
    }
    for (size_t k = 1; k < kSize; ++k) {
      state_[i] = (state_[i] ^ (state_[i - 1] ^ state_[i - 1] >> 30) * 1566083941u) - static_cast<u32>(i);
      advance();
    }
    state_[0] = 0x80000000u;
  }

  u32 next() {
    if (at_ == kSize) refill();
    u32 y = state_[at_++];
    y ^= y >> 11;
    y ^= y << 7 & 0x9D2C5680u;
    y ^= y << 15 & 0xEFC60000u;
    return y ^ y >> 18;
  }

  void refill() {
    for (size_t k = 0; k < kSize; ++k) {
      const u32 y = (state_[k] & 0x80000000u) | (state_[(k + 1) % kSize] & 0x7FFFFFFFu);
      state_[k] = state_[(k + kMiddle) % kSize] ^ y >> 1 ^ (y & 1 ? 0x9908B0DFu : 0u);
    }
    at_ = 0;
  }

  std::array<u32, kSize> state_;
  size_t at_ = kSize;
};

}  // namespace signround
