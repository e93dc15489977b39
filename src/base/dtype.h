// Element types: the names of the safetensors format, their sizes, and bit-exact conversions of the 16-bit floats.
#pragma once
#include <bit>
#include <cstdint>
#include <optional>
#include <string_view>

namespace signround {

using u8 = std::uint8_t;
using i8 = std::int8_t;
using u16 = std::uint16_t;
using u32 = std::uint32_t;
using u64 = std::uint64_t;
using i32 = std::int32_t;
using i64 = std::int64_t;

enum class DType : u8 {
  f64, f32, f16, bf16, i64, i32, i16, i8, u64, u32, u16, u8, boolean, c64,
  f8_e4m3, f8_e5m2, f8_e8m0, f8_e4m3fnuz, f8_e5m2fnuz, f6_e2m3, f6_e3m2, f4,
  dual,  // a double with its derivative: exists for the tests of the gradients, never in a file
};

struct DTypeInfo {
  DType dtype;
  std::string_view name;  // as written in a safetensors header; empty if it has no place there
  int bits;
};

inline constexpr DTypeInfo kDTypes[] = {
    {DType::f64, "F64", 64},         {DType::f32, "F32", 32},         {DType::f16, "F16", 16},
    {DType::bf16, "BF16", 16},       {DType::i64, "I64", 64},         {DType::i32, "I32", 32},
    {DType::i16, "I16", 16},         {DType::i8, "I8", 8},            {DType::u64, "U64", 64},
    {DType::u32, "U32", 32},         {DType::u16, "U16", 16},         {DType::u8, "U8", 8},
    {DType::boolean, "BOOL", 8},     {DType::c64, "C64", 64},         {DType::f8_e4m3, "F8_E4M3", 8},
    {DType::f8_e5m2, "F8_E5M2", 8},  {DType::f8_e8m0, "F8_E8M0", 8},  {DType::f8_e4m3fnuz, "F8_E4M3FNUZ", 8},
    {DType::f8_e5m2fnuz, "F8_E5M2FNUZ", 8}, {DType::f6_e2m3, "F6_E2M3", 6}, {DType::f6_e3m2, "F6_E3M2", 6},
    {DType::f4, "F4", 4},            {DType::dual, "", 128},
};

constexpr int bits_of(DType d) { return kDTypes[static_cast<int>(d)].bits; }
constexpr i64 bytes_of(DType d) { return bits_of(d) / 8; }  // whole-byte types only
constexpr std::string_view name_of(DType d) { return kDTypes[static_cast<int>(d)].name; }
constexpr std::optional<DType> dtype_named(std::string_view name) {
  for (const DTypeInfo& i : kDTypes)
    if (!name.empty() && i.name == name) return i.dtype;
  return std::nullopt;
}

// bfloat16: the upper half of a float.
struct bf16 {
  u16 bits = 0;
  bf16() = default;
  constexpr explicit bf16(float x) {  // round to nearest, ties to even; NaN stays NaN
    const u32 u = std::bit_cast<u32>(x);
    const u32 rounded = (u + 0x7FFFu + ((u >> 16) & 1u)) >> 16;
    bits = static_cast<u16>((u & 0x7FFFFFFFu) > 0x7F800000u ? (u >> 16) | 0x40u : rounded);
  }
  constexpr operator float() const { return std::bit_cast<float>(static_cast<u32>(bits) << 16); }
};

// IEEE half precision. The conversions are branch-light integer arithmetic, so that compilers vectorise them.
struct f16 {
  u16 bits = 0;
  f16() = default;
  constexpr explicit f16(float x) {  // round to nearest, ties to even; overflow to infinity
    const u32 u = std::bit_cast<u32>(x);
    const u32 sign = (u >> 16) & 0x8000u, a = u & 0x7FFFFFFFu;
    u32 h = 0;
    if (a > 0x7F800000u) h = 0x7E00u;                        // NaN
    else if (a >= 0x477FF000u) h = 0x7C00u;                  // rounds past 65504
    else if (a >= 0x38800000u) h = (a - 0x38000000u + 0xFFFu + ((a >> 13) & 1u)) >> 13;  // normal
    else h = std::bit_cast<u32>(std::bit_cast<float>(a) + 0.5f) - 0x3F000000u;  // subnormal: the adder rounds at 2^-24
    bits = static_cast<u16>(sign | h);
  }
  constexpr operator float() const {
    const u32 sign = (bits & 0x8000u) << 16, e = (bits >> 10) & 31u, m = bits & 0x3FFu;
    if (e == 31) return std::bit_cast<float>(sign | 0x7F800000u | (m << 13));
    if (e == 0) {
      const float tiny = static_cast<float>(m) * 0x1p-24f;
      return sign ? -tiny : tiny;
    }
    return std::bit_cast<float>(sign | ((e + 112u) << 23) | (m << 13));
  }
};

// The DType of a C++ type: dtype_of<bf16> == DType::bf16. Specialised once more by the tests for dual numbers.
template <class T> inline constexpr DType dtype_of = DType::u8;
template <> inline constexpr DType dtype_of<double> = DType::f64;
template <> inline constexpr DType dtype_of<float> = DType::f32;
template <> inline constexpr DType dtype_of<f16> = DType::f16;
template <> inline constexpr DType dtype_of<bf16> = DType::bf16;
template <> inline constexpr DType dtype_of<i32> = DType::i32;
template <> inline constexpr DType dtype_of<i64> = DType::i64;

}  // namespace signround
