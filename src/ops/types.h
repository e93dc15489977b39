// The small words that every op speaks, shared by the interface and the kernels. No device, no tensor.
#pragma once
#include <cmath>

#include "base/dtype.h"

namespace signround {

enum class Acc : u8 { set, add };  // out = result, or out += result
enum class Activation : u8 { silu, gelu_tanh, gelu, relu };  // gelu: x Phi(x), gelu_tanh its usual approximation
// Of the factors of matrix products; sums are always f32. fp8: bf16, but for the large products of a backward, whose factors are
// e4m3 with a scale for every 128 numbers or tile of 128 x 128.
enum class Precision : u8 { f32, bf16, fp8 };

// q [B*T, H*d], k and v [B*T, K*d], heads side by side; query head h reads KV head h / (H/K).
struct AttentionShape {
  i64 batch = 0, tokens = 0, heads = 0, kv_heads = 0, head_dim = 0;  // B, T, H, K, d
  float scale = 1;
  i64 window = 0;     // 0: none; else key j is visible to query i iff i - window < j <= i
  float softcap = 0;  // 0: none; else scores become cap * tanh(scores / cap)
  bool causal = true;
  bool alibi = false;  // scores get less by slope * (i - j); not together with a softcap
  // With alibi: Falcon's. Scores get more by scale * falcon_bias(slope, j), which its training rounded so.
  bool falcon_alibi = false;
};

// The slope of a query head is 2 to the power of (Press 2022): -8 (h+1) / H where H is a power of two; else those of the power
// below, then every other one of the power above.
constexpr double alibi_exponent(i64 head, i64 heads) {
  i64 power = 1;
  while (2 * power <= heads) power *= 2;
  const double step = -8.0 / static_cast<double>(power);
  return head < power ? step * static_cast<double>(head + 1) : step / 2 * static_cast<double>(2 * (head - power) + 1);
}
inline double alibi_slope(i64 head, i64 heads) { return std::exp2(alibi_exponent(head, heads)); }

// slope * j in bf16, as are slope and j.
constexpr float falcon_bias(float slope, i64 key) {
  const auto rounded = [](float x) { return static_cast<float>(bf16(x)); };
  return rounded(rounded(slope) * rounded(static_cast<float>(static_cast<int>(key))));
}

struct RopeShape {
  i64 tokens = 0, heads = 0, head_dim = 0;
  i64 rotary_dim = 0;        // leading dimensions of a head that rotate; the rest passes through
  bool interleaved = false;  // pairs (2i, 2i+1) as in GPT-J; else (i, i + rotary_dim/2)
};

// Of every `period` columns, those from `first` on, `width` of them: q of rows that hold q, k and v side by side, head by head.
struct ColumnSlice {
  i64 first = 0, width = 0, period = 0;
};

inline constexpr i64 kSuperBlock = 256;  // weights under one pair of F16 scales where scales have two levels
inline constexpr int kMostGroups = 16;   // of a super-block

// An integer grid: bits, columns a group shares a scale over (-1: the whole row), symmetric or with a zero point. The scale of a
// group is an F16 of its own, or, at two levels, an integer of scale_bits times the F16 of its super-block.
struct QuantSpec {
  int bits = 4;  // 2..8; 16: not quantized
  i64 group = 128;
  bool symmetric = true;
  int scale_bits = 0;  // 0: one level. Else 2..8, groups of 16 or 32, rows of whole super-blocks

  bool quantized() const { return bits < 16; }
  constexpr bool two_levels() const { return scale_bits > 0; }
  i64 group_of(i64 cols) const { return group <= 0 || group > cols ? cols : group; }
  i64 groups(i64 cols) const { return (cols + group_of(cols) - 1) / group_of(cols); }
  i64 shared() const { return two_levels() ? kSuperBlock / group : 1; }   // groups under one F16 scale
  i64 scales(i64 cols) const { return groups(cols) / shared(); }          // F16 scales of a row
  friend bool operator==(const QuantSpec&, const QuantSpec&) = default;
};

}  // namespace signround
