#include "export/export.h"

#include <string_view>

#include "base/nearest.h"
#include "export/auto_round.h"
#include "export/awq.h"
#include "export/compressed_tensors.h"
#include "export/fake.h"
#include "export/gguf.h"
#include "export/gptq.h"

namespace signround {
namespace {

template <GgmlType type>
std::unique_ptr<Exporter> gguf(const ExportScheme& scheme) {
  return make_gguf_exporter(type, scheme);
}

}  // namespace

TensorInfo tensor_info(std::string name, DType dtype, std::vector<i64> shape) {
  i64 bytes = bytes_of(dtype);
  for (i64 d : shape) bytes *= d;
  return {std::move(name), dtype, std::move(shape), 0, static_cast<u64>(bytes)};
}

std::vector<EncodedTensor> empty_tensors(std::vector<TensorInfo> infos) {
  std::vector<EncodedTensor> tensors;
  for (TensorInfo& info : infos) {
    std::vector<u8> bytes(info.bytes);
    tensors.push_back({std::move(info), std::move(bytes)});
  }
  return tensors;
}

std::string fused_name(const std::string& layer) {
  constexpr std::string_view kExperts = ".experts.";
  if (const std::size_t at = layer.find(kExperts); at != std::string::npos) return layer.substr(0, at + kExperts.size() - 1);
  const std::size_t dot = layer.rfind('.') + 1;
  const std::string_view last = std::string_view(layer).substr(dot);
  if (last == "q_proj" || last == "k_proj" || last == "v_proj") return layer.substr(0, dot) + "qkv_proj";
  if (last == "gate_proj" || last == "up_proj") return layer.substr(0, dot) + "gate_up_proj";
  return "";
}

void use_float16(Json& config) { config.set(config.find("dtype") ? "dtype" : "torch_dtype", "float16"); }

std::unique_ptr<Exporter> make_exporter(const std::string& format, const ExportScheme& scheme) {
  struct Format {
    std::string_view name;
    std::unique_ptr<Exporter> (*make)(const ExportScheme&);
  };
  constexpr Format kFormats[] = {{"auto_round", make_auto_round_exporter},
                                 {"gptq", make_gptq_exporter},
                                 {"gptq_v2", make_gptq_v2_exporter},
                                 {"awq", make_awq_exporter},
                                 {"compressed-tensors", make_compressed_tensors_exporter},
                                 {"fake", make_fake_exporter},
                                 {"gguf:q4_0", gguf<GgmlType::q4_0>},
                                 {"gguf:q4_1", gguf<GgmlType::q4_1>},
                                 {"gguf:q8_0", gguf<GgmlType::q8_0>},
                                 {"gguf:q2_0", gguf<GgmlType::q2_0>},
                                 {"gguf:q2_k", gguf<GgmlType::q2_k>},
                                 {"gguf:q3_k", gguf<GgmlType::q3_k>},
                                 {"gguf:q4_k", gguf<GgmlType::q4_k>},
                                 {"gguf:q5_k", gguf<GgmlType::q5_k>},
                                 {"gguf:q6_k", gguf<GgmlType::q6_k>}};

  std::vector<std::string_view> names;
  for (const Format& f : kFormats) {
    if (f.name == format) return f.make(scheme);
    names.push_back(f.name);
  }
  fail(ErrorKind::usage, "format \"", format, "\" is not known; the nearest is ", nearest(format, names));
}

}  // namespace signround
