#include "export/gguf.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <span>

#include "export/gguf_blocks.h"

namespace signround {
namespace {

struct Kind {
  const char* format;  // null: no format of its own, but what rows of other lengths than whole super-blocks become
  GgmlType type;
  QuantSpec grid;      // of one level: in groups of these or of multiples of them
  GgmlType fallback = GgmlType::f32;  // f32: none
};
// The fallbacks are llama.cpp's, but that its quantizer makes q2_k and q3_k iq4_nl: a grid of uneven steps, and as large as q4_0.
constexpr Kind kKinds[] = {{"gguf:q4_0", GgmlType::q4_0, {4, 32, true}},
                           {"gguf:q4_1", GgmlType::q4_1, {4, 32, false}},
                           {"gguf:q8_0", GgmlType::q8_0, {8, 32, true}},
                           {"gguf:q2_0", GgmlType::q2_0, {2, 64, true}},
                           {"gguf:q2_k", GgmlType::q2_k, {2, 16, false, 4}, GgmlType::q4_0},
                           {"gguf:q3_k", GgmlType::q3_k, {3, 16, true, 6}, GgmlType::q4_0},
                           {"gguf:q4_k", GgmlType::q4_k, {4, 32, false, 6}, GgmlType::q5_0},
                           {"gguf:q5_k", GgmlType::q5_k, {5, 32, false, 6}, GgmlType::q5_1},
                           {"gguf:q6_k", GgmlType::q6_k, {6, 16, true, 8}, GgmlType::q8_0},
                           {nullptr, GgmlType::q5_0, {5, 32, true}},
                           {nullptr, GgmlType::q5_1, {5, 32, false}}};

const Kind* kind_of(const QuantSpec& spec) {
  for (const Kind& k : kKinds)
    if (k.grid.bits == spec.bits && k.grid.symmetric == spec.symmetric && k.grid.scale_bits == spec.scale_bits &&
        (!spec.two_levels() || k.grid.group == spec.group))
      return &k;
  return nullptr;
}
const Kind& kind_of(GgmlType type) {
  for (const Kind& k : kKinds)
    if (k.type == type) return k;
  fail(ErrorKind::bug, "no grid for the type ", static_cast<u32>(type));
}
const Kind* kind_of(const std::string& format) {
  for (const Kind& k : kKinds)
    if (k.format && k.format == format) return &k;
  return nullptr;
}

void put_half(u8* at, f16 value) { std::memcpy(at, &value, sizeof value); }
f16 get_half(const u8* at) {
  f16 value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

// A scale and a code as a block has them, and back: q2_0 counts its levels the other way, q8_0 has signed bytes.
f16 as_stored(GgmlType type, f16 scale) {
  if (type == GgmlType::q2_0) scale.bits = static_cast<u16>(scale.bits ^ 0x8000u);
  return scale;
}
int as_stored(GgmlType type, int code) { return type == GgmlType::q2_0 ? 3 - code : type == GgmlType::q8_0 ? code ^ 128 : code; }

// f(block's bytes, index of its scale, of its first group, of its first code) for the blocks of a layer.
template <class Layer, class Byte, class F>
void for_blocks(const Layer& layer, const GgmlBlock& size, Byte* bytes, F f) {
  const i64 group = layer.spec.group_of(layer.cols), groups = layer.groups(), shared = layer.spec.shared();
  for (i64 row = 0; row < layer.rows; ++row)
    for (i64 c = 0; c < layer.cols; c += size.values, bytes += size.bytes) {
      const i64 g = row * groups + c / group;
      f(bytes, static_cast<std::size_t>(g / shared), static_cast<std::size_t>(g),
        static_cast<std::size_t>(row * layer.cols + c));
    }
}

// A layer is one tensor here, P.weight, U8 [out, bytes of a row]: the container gives it its name and type.
class Gguf final : public Exporter {
 public:
  Gguf(GgmlType type, const ExportScheme& scheme) : kind_(kind_of(type)), scheme_(scheme) {}

  void require(const std::string& name, i64, i64 cols, const QuantSpec& spec) const override {
    const Kind* fitting = kind_of(spec);
    const bool own = std::any_of(scheme_.exceptions.begin(), scheme_.exceptions.end(),
                                 [&](const auto& exception) { return exception.first == name; });
    check(!own || fitting, ErrorKind::usage, name, ": format gguf has no blocks of ", spec.bits, " bits, ",
          spec.symmetric ? "symmetric" : "asymmetric", "; the nearest is 4 or 8 bits for this layer, or --format auto_round");
    check(own || fitting == &kind_ || (fitting && fitting->type == kind_.fallback), ErrorKind::usage, name, ": format ",
          kind_.format, " holds ", kind_.grid.bits, " bits, ", kind_.grid.symmetric ? "symmetric" : "asymmetric",
          kind_.grid.two_levels() ? ", with scales of two levels" : "", "; the nearest for this grid is --format ",
          fitting && fitting->format ? fitting->format : spec.bits < 5 || spec.bits == 8 ? "auto_round" : "compressed-tensors");
    const i64 group = spec.group_of(cols), values = block_of(fitting->type).values;
    check(cols % values == 0 && (spec.two_levels() || group % values == 0), ErrorKind::usage, name, ": format ", kind_.format,
          " has blocks of ", values, ", and ", cols, " inputs in groups of ", group, " are not made of them; the nearest is ",
          cols % values == 0 ? cat("--group-size ", values) : "--ignore-layers " + name);
  }

  std::vector<TensorInfo> layout(const std::string& name, i64 rows, i64 cols, const QuantSpec& spec, DType) const override {
    const GgmlBlock block = block_of(gguf_type(spec));
    return {tensor_info(name + ".weight", DType::u8, {rows, cols / block.values * block.bytes})};
  }

  std::vector<EncodedTensor> encode(const QuantizedLinear& layer) const override {
    std::vector<EncodedTensor> out = empty_tensors(layout(layer.name, layer.rows, layer.cols, layer.spec, layer.weight_type));
    const GgmlType type = gguf_type(layer.spec);
    const BlockLayout& b = layout_of(type);
    for_blocks(layer, b.size, out[0].bytes.data(), [&](u8* block, std::size_t scale, std::size_t group, std::size_t code) {
      const f16 s = layer.scale[scale];
      put_half(block + b.scale, as_stored(type, s));
      if (b.offset >= 0)
        put_half(block + b.offset, layer.spec.two_levels()
                                       ? layer.offset[scale]
                                       : f16(-static_cast<float>(layer.zero[group]) * static_cast<float>(s)));
      for (std::size_t k = 0; k < b.factors.size(); ++k) put(block, b.factors[k], layer.factor[group + k] + b.factor_bias);
      for (std::size_t k = 0; k < b.zeros.size(); ++k) put(block, b.zeros[k], layer.zero[group + k]);
      for (std::size_t i = 0; i < b.codes.size(); ++i) put(block, b.codes[i], as_stored(type, int{layer.codes[code + i]}));
    });
    return out;
  }

  void configure(Json&) const override {}

 private:
  const Kind& kind_;
  const ExportScheme scheme_;
};

}  // namespace

std::unique_ptr<Exporter> make_gguf_exporter(GgmlType type, const ExportScheme& scheme) {
  return std::make_unique<Gguf>(type, scheme);
}

bool is_gguf(const std::string& format) { return format.starts_with("gguf:"); }

GgmlType gguf_type(const std::string& format) {
  const Kind* kind = kind_of(format);
  check(kind, ErrorKind::usage, "format \"", format, "\" is not known");
  return kind->type;
}
GgmlType gguf_type(const QuantSpec& spec) {
  const Kind* kind = kind_of(spec);
  check(kind, ErrorKind::bad_input, "GGUF has no type for ", spec.bits, " bits in groups of ", spec.group);
  return kind->type;
}

std::optional<QuantSpec> gguf_grid(const std::string& format) {
  const Kind* kind = kind_of(format);
  return kind && kind->grid.two_levels() ? std::optional(kind->grid) : std::nullopt;
}

QuantSpec gguf_fallback(const QuantSpec& spec, i64 cols) {
  return spec.two_levels() && cols % kSuperBlock != 0 ? kind_of(kind_of(gguf_type(spec)).fallback).grid : spec;
}

QuantizedLinear decode_gguf(std::span<const std::byte> bytes, const std::string& name, i64 rows, i64 cols, const QuantSpec& spec,
                            DType weight_type) {
  const GgmlType type = gguf_type(spec);
  const BlockLayout& b = layout_of(type);
  check(static_cast<i64>(bytes.size()) == rows * (cols / b.size.values) * b.size.bytes && cols % b.size.values == 0,
        ErrorKind::bad_input, name, ": ", bytes.size(), " bytes are not ", rows, " x ", cols, " weights");
  QuantizedLinear out{name, rows, cols, spec, weight_type, {}, {}, {}};
  resize_grid(out);
  const u8* first_block = reinterpret_cast<const u8*>(bytes.data());
  const auto finite = [&](f16 x) {
    check(std::isfinite(static_cast<float>(x)), ErrorKind::bad_input, name, ": a scale is not finite");
    return x;
  };
  std::size_t seen = 0;  // groups
  for_blocks(out, b.size, first_block, [&](const u8* block, std::size_t scale, std::size_t group, std::size_t code) {
    for (std::size_t i = 0; i < b.codes.size(); ++i)
      out.codes[code + i] = static_cast<u8>(as_stored(type, get(block, b.codes[i])));
    const f16 s = finite(as_stored(type, get_half(block + b.scale)));
    if (spec.two_levels()) {
      out.scale[scale] = s;
      for (std::size_t k = 0; k < b.factors.size(); ++k) {
        out.factor[group + k] = static_cast<i8>(get(block, b.factors[k]) - b.factor_bias);
        out.zero[group + k] = static_cast<u8>(b.zeros.empty() ? 1 << (spec.bits - 1) : get(block, b.zeros[k]));
      }
      if (b.offset >= 0) out.offset[scale] = finite(get_half(block + b.offset));
      return;
    }
    // The zero point, from scale and minimum: m = -zero * scale is off by half a unit of F16 at the most, far less than half a
    // scale.
    const i64 zero = b.offset < 0 ? i64{1} << (spec.bits - 1)
                                  : std::lround(-static_cast<float>(finite(get_half(block + b.offset))) / static_cast<float>(s));
    check(zero >= 0 && zero < 1 << spec.bits, ErrorKind::bad_input, name, ": a zero point of ", zero, " cannot be");
    check(group == seen || (s.bits == out.scale[group].bits && zero == out.zero[group]), ErrorKind::bad_input, name,
          ": blocks of one group have different scales");
    seen = group + 1;
    out.scale[group] = s;
    out.zero[group] = static_cast<u8>(zero);
  });
  return out;
}

}  // namespace signround
