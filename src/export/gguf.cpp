#include "export/gguf.h"

#include <cmath>
#include <cstring>
#include <span>

namespace signround {
namespace {

struct Bridge {
  const char* format;
  GgmlType type;
  int bits;
  bool symmetric;
};
constexpr Bridge kBridges[] = {{"gguf:q4_0", GgmlType::q4_0, 4, true},
                               {"gguf:q4_1", GgmlType::q4_1, 4, false},
                               {"gguf:q8_0", GgmlType::q8_0, 8, true},
                               {"gguf:q2_0", GgmlType::q2_0, 2, true}};

const Bridge& bridge_of(GgmlType type) {
  for (const Bridge& b : kBridges)
    if (b.type == type) return b;
  fail(ErrorKind::bug, "no grid for the type ", static_cast<u32>(type));
}

const Bridge* bridge_for(const QuantSpec& spec) {
  for (const Bridge& b : kBridges)
    if (b.bits == spec.bits && b.symmetric == spec.symmetric) return &b;
  return nullptr;
}

void put_half(u8* at, f16 value) { std::memcpy(at, &value, sizeof value); }
f16 get_half(const u8* at) {
  f16 value;
  std::memcpy(&value, at, sizeof value);
  return value;
}
f16 negative(f16 x) {
  x.bits = static_cast<u16>(x.bits ^ 0x8000u);
  return x;
}

void encode_block(GgmlType type, u8* block, const u8* code, f16 scale, int zero) {
  put_half(block, type == GgmlType::q2_0 ? negative(scale) : scale);
  u8* q = block + 2;
  switch (type) {
    case GgmlType::q4_1:
      put_half(q, f16(-static_cast<float>(zero) * static_cast<float>(scale)));
      q += 2;
      [[fallthrough]];
    case GgmlType::q4_0:
      for (int j = 0; j < 16; ++j) q[j] = static_cast<u8>(code[j] | code[j + 16] << 4);
      return;
    case GgmlType::q8_0:
      for (int j = 0; j < 32; ++j) q[j] = static_cast<u8>(code[j] - 128);
      return;
    default:
      for (int j = 0; j < 16; ++j) {
        const u8* c = code + 4 * j;
        q[j] = static_cast<u8>((3 - c[0]) | (3 - c[1]) << 2 | (3 - c[2]) << 4 | (3 - c[3]) << 6);
      }
  }
}

// The zero point, from scale and minimum: m = -zero * scale is off by half a unit of F16 at the most, far less than half a scale.
void decode_block(GgmlType type, const u8* block, u8* code, f16& scale, int& zero) {
  scale = type == GgmlType::q2_0 ? negative(get_half(block)) : get_half(block);
  const u8* q = block + 2;
  switch (type) {
    case GgmlType::q4_1:
      zero = static_cast<int>(std::lround(-static_cast<float>(get_half(q)) / static_cast<float>(scale)));
      q += 2;
      [[fallthrough]];
    case GgmlType::q4_0:
      for (int j = 0; j < 16; ++j) code[j] = q[j] & 15, code[j + 16] = q[j] >> 4;
      return;
    case GgmlType::q8_0:
      for (int j = 0; j < 32; ++j) code[j] = static_cast<u8>(q[j] + 128);
      return;
    default:
      for (int j = 0; j < 64; ++j) code[j] = static_cast<u8>(3 - (q[j / 4] >> 2 * (j % 4) & 3));
  }
}

// A layer is one tensor here, P.weight, U8 [out, bytes of a row]: the container gives it its name and type.
class Gguf final : public Exporter {
 public:
  Gguf(GgmlType type, const ExportScheme& scheme) : type_(type), scheme_(scheme) {}

  void require(const std::string& name, i64, i64 cols, const QuantSpec& spec) const override {
    const Bridge &bridge = bridge_of(type_of(name)), *fitting = bridge_for(spec);
    check(&bridge == fitting, ErrorKind::usage, name, ": format ", bridge.format, " holds ", bridge.bits, " bits, ",
          bridge.symmetric ? "symmetric" : "asymmetric", "; the nearest for this grid is --format ",
          fitting ? fitting->format : "auto_round");
    const GgmlBlock block = block_of(bridge.type);
    const i64 group = spec.group_of(cols);
    check(cols % block.values == 0 && group % block.values == 0, ErrorKind::usage, name, ": format ", bridge.format,
          " has blocks of ", block.values, ", and ", cols, " inputs in groups of ", group,
          " are not made of them; the nearest is ",
          cols % block.values == 0 ? cat("--group-size ", block.values) : "--ignore-layers " + name);
  }

  std::vector<TensorInfo> layout(const std::string& name, i64 rows, i64 cols, const QuantSpec&, DType) const override {
    const GgmlBlock block = block_of(type_of(name));
    return {tensor_info(name + ".weight", DType::u8, {rows, cols / block.values * block.bytes})};
  }

  std::vector<EncodedTensor> encode(const QuantizedLinear& layer) const override {
    std::vector<EncodedTensor> out = empty_tensors(layout(layer.name, layer.rows, layer.cols, layer.spec, layer.weight_type));
    const i64 group = layer.spec.group_of(layer.cols), groups = layer.groups();
    const GgmlType type = type_of(layer.name);
    const GgmlBlock size = block_of(type);
    u8* block = out[0].bytes.data();
    for (i64 row = 0; row < layer.rows; ++row)
      for (i64 c = 0; c < layer.cols; c += size.values, block += size.bytes) {
        const std::size_t g = static_cast<std::size_t>(row * groups + c / group);
        encode_block(type, block, layer.codes.data() + row * layer.cols + c, layer.scale[g], layer.zero[g]);
      }
    return out;
  }

  void configure(Json&) const override {}

 private:
  GgmlType type_of(const std::string& layer) const { return gguf_type(type_, scheme_, layer); }

  const GgmlType type_;
  const ExportScheme scheme_;
};

}  // namespace

std::unique_ptr<Exporter> make_gguf_exporter(GgmlType type, const ExportScheme& scheme) {
  return std::make_unique<Gguf>(type, scheme);
}

bool is_gguf(const std::string& format) { return format.starts_with("gguf:"); }

GgmlType gguf_type(const std::string& format) {
  for (const Bridge& b : kBridges)
    if (b.format == format) return b.type;
  fail(ErrorKind::usage, "format \"", format, "\" is not known");
}

GgmlType gguf_type(GgmlType type, const ExportScheme& scheme, const std::string& layer) {
  for (const auto& [name, spec] : scheme.exceptions) {
    if (name != layer) continue;
    const Bridge* bridge = bridge_for(spec);
    check(bridge != nullptr, ErrorKind::usage, name, ": format gguf has no blocks of ", spec.bits, " bits, ",
          spec.symmetric ? "symmetric" : "asymmetric", "; the nearest is 4 or 8 bits for this layer, or --format auto_round");
    return bridge->type;
  }
  return type;
}

QuantizedLinear decode_gguf(GgmlType type, std::span<const std::byte> bytes, const std::string& name, i64 rows, i64 cols,
                            const QuantSpec& spec, DType weight_type) {
  const GgmlBlock size = block_of(type);
  check(static_cast<i64>(bytes.size()) == rows * (cols / size.values) * size.bytes && cols % size.values == 0,
        ErrorKind::bad_input, name, ": ", bytes.size(), " bytes are not ", rows, " x ", cols, " weights");
  const i64 group = spec.group_of(cols), groups = spec.groups(cols);
  QuantizedLinear out{name, rows, cols, spec, weight_type, {}, {}, {}};
  out.codes.resize(static_cast<std::size_t>(rows * cols));
  out.scale.resize(static_cast<std::size_t>(rows * groups));
  out.zero.resize(out.scale.size());
  const u8* block = reinterpret_cast<const u8*>(bytes.data());
  for (i64 row = 0; row < rows; ++row)
    for (i64 c = 0; c < cols; c += size.values, block += size.bytes) {
      const std::size_t g = static_cast<std::size_t>(row * groups + c / group);
      f16 scale;
      int zero = 1 << (spec.bits - 1);
      decode_block(type, block, out.codes.data() + row * cols + c, scale, zero);
      check(std::isfinite(static_cast<float>(scale)), ErrorKind::bad_input, name, ": a scale of row ", row, " is not finite");
      const bool first = c % group == 0;
      check(first || (scale.bits == out.scale[g].bits && zero == out.zero[g]), ErrorKind::bad_input, name, ": row ", row,
            ": blocks of one group have different scales");
      check(zero >= 0 && zero < 1 << spec.bits, ErrorKind::bad_input, name, ": row ", row, ": a zero point of ", zero,
            " cannot be");
      out.scale[g] = scale;
      out.zero[g] = static_cast<u8>(zero);
    }
  return out;
}

}  // namespace signround
