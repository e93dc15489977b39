#include "export/compressed_tensors.h"

#include <algorithm>
#include <cstring>

#include "export/packed_int32.h"
#include "io/bit_packing.h"

namespace signround {
namespace {

Json describe_group(const QuantSpec& spec, Json targets) {
  const bool rows = spec.group <= 0;
  Json weights = Json::object({{"num_bits", spec.bits},
                               {"type", "int"},
                               {"symmetric", spec.symmetric},
                               {"strategy", rows ? "channel" : "group"},
                               {"group_size", rows ? Json() : Json(spec.group)},
                               {"dynamic", false}});
  return Json::object({{"targets", std::move(targets)},
                       {"weights", std::move(weights)},
                       {"input_activations", nullptr},
                       {"output_activations", nullptr},
                       {"format", "pack-quantized"}});
}

// Instead of P.weight [out, in], with b bits and groups of g inputs:
//   P.weight_packed      I32 [out, in*b/32]  codes, packed along the input
//   P.weight_scale       F16 [out, in/g]
//   P.weight_zero_point  I32 [out*b/32, in/g]  zero points, packed along the output; absent from symmetric grids
//   P.weight_shape       I64 [2]             out, in
// Integers are signed there and 2^(b-1) is added before they are packed: in the file are our codes and zero points as they are.
class CompressedTensors final : public Exporter {
 public:
  explicit CompressedTensors(const ExportScheme& scheme) : scheme_(scheme) {}

  void require(const std::string& name, i64 rows, i64 cols, const QuantSpec& spec) const override {
    check(spec.symmetric || spec.bits == 4 || spec.bits == 8, ErrorKind::usage, name,
          ": format compressed-tensors has zero points at 4 and 8 bits only, not at ", spec.bits,
          "; the nearest is the symmetric grid (leave --asym out), or --bits ", spec.bits < 6 ? 4 : 8);
    require_whole_blocks(name, rows, cols);
    require_whole_groups(name, cols, spec);
  }

  std::vector<TensorInfo> layout(const std::string& name, i64 rows, i64 cols, const QuantSpec& spec, DType) const override {
    const i64 groups = spec.groups(cols);
    std::vector<TensorInfo> tensors = {
        tensor_info(name + ".weight_packed", DType::i32, {rows, packed_words(cols, spec.bits)}),
        tensor_info(name + ".weight_scale", DType::f16, {rows, groups}),
        tensor_info(name + ".weight_shape", DType::i64, {2})};
    if (!spec.symmetric)
      tensors.push_back(tensor_info(name + ".weight_zero_point", DType::i32, {packed_words(rows, spec.bits), groups}));
    return tensors;
  }

  std::vector<EncodedTensor> encode(const QuantizedLinear& layer) const override {
    const i64 rows = layer.rows, cols = layer.cols, groups = layer.groups(), shape[2] = {rows, cols};
    const int bits = layer.spec.bits;
    std::vector<EncodedTensor> out = empty_tensors(layout(layer.name, rows, cols, layer.spec, layer.weight_type));
    const auto words = [&](std::size_t i) { return reinterpret_cast<u32*>(out[i].bytes.data()); };
    pack_bits({words(0), 1, packed_words(cols, bits)}, {layer.codes.data(), 1, cols}, cols, rows, bits);
    std::memcpy(out[1].bytes.data(), layer.scale.data(), out[1].bytes.size());
    std::memcpy(out[2].bytes.data(), shape, out[2].bytes.size());
    if (!layer.spec.symmetric) pack_bits({words(3), groups, 1}, {layer.zero.data(), groups, 1}, rows, groups, bits);
    return out;
  }

  // A group for each grid. That of most layers is for all linear ones but the ignored; layers that differ are targets by name,
  // which readers look for first.
  void configure(Json& config) const override {
    Json groups = Json::object({}), ignored = Json::array({"lm_head"});
    std::vector<std::pair<QuantSpec, Json>> own;
    for (const auto& [name, spec] : scheme_.exceptions) {
      auto same = std::find_if(own.begin(), own.end(), [&, &s = spec](const auto& group) { return group.first == s; });
      if (same == own.end()) same = own.emplace(own.end(), spec, Json::array({}));
      same->second.push(name);
    }
    for (auto& [spec, targets] : own) groups.set(cat("group_", groups.object().size()), describe_group(spec, std::move(targets)));
    groups.set(cat("group_", groups.object().size()), describe_group(scheme_.spec, Json::array({"Linear"})));
    for (const std::string& name : scheme_.skipped) ignored.push(name);
    config.set("quantization_config", Json::object({{"quant_method", "compressed-tensors"},
                                                    {"format", "pack-quantized"},
                                                    {"quantization_status", "compressed"},
                                                    {"config_groups", std::move(groups)},
                                                    {"ignore", std::move(ignored)},
                                                    {"kv_cache_scheme", nullptr}}));
  }

 private:
  const ExportScheme scheme_;
};

}  // namespace

std::unique_ptr<Exporter> make_compressed_tensors_exporter(const ExportScheme& scheme) {
  return std::make_unique<CompressedTensors>(scheme);
}

}  // namespace signround
