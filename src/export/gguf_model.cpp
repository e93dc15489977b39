#include "export/gguf_model.h"

#include <algorithm>
#include <atomic>
#include <cmath>

#include "base/threads.h"
#include "export/gguf.h"
#include "export/gguf_names.h"
#include "export/gguf_tokenizer.h"
#include "io/sha256.h"

namespace signround {
namespace {

u32 file_type(GgmlType type) {
  switch (type) {
    case GgmlType::q4_0: return 2;
    case GgmlType::q4_1: return 3;
    case GgmlType::q8_0: return 7;
    case GgmlType::q2_0: return 41;
    case GgmlType::q2_k: return 10;
    case GgmlType::q3_k: return 11;  // this one and the next two: "small", hence one type for all layers
    case GgmlType::q4_k: return 14;
    case GgmlType::q5_k: return 16;
    case GgmlType::q6_k: return 18;
    default: return 1;
  }
}

template <class From, class To>
void convert_to(std::vector<std::byte>& out, const std::vector<std::byte>& in, const std::string& name, float plus) {
  const i64 count = static_cast<i64>(in.size() / sizeof(From));
  out.resize(static_cast<std::size_t>(count) * sizeof(To));
  const From* from = reinterpret_cast<const From*>(in.data());
  To* to = reinterpret_cast<To*>(out.data());
  std::atomic<bool> finite = true;
  parallel_ranges(count, i64{1} << 18, [&](i64 first, i64 last) {
    bool all = true;
    for (i64 i = first; i < last; ++i) {
      to[i] = To(static_cast<float>(from[i]) + plus);
      all &= std::isfinite(static_cast<float>(to[i]));
    }
    if (!all) finite = false;
  });
  for (i64 i = 0; !finite; ++i)  // the first of them is named, whichever range was sooner
    if (!std::isfinite(static_cast<float>(to[i])))
      fail(ErrorKind::bad_input, "tensor ", quote(name), ": the value at index ", i,
           " is not finite in F16; the nearest is --format auto_round");
}

template <class To>
std::vector<std::byte> converted(const std::vector<std::byte>& in, DType type, const std::string& name, float plus = 0) {
  std::vector<std::byte> out;
  if (type == DType::f32) convert_to<float, To>(out, in, name, plus);
  else if (type == DType::f16) convert_to<f16, To>(out, in, name, plus);
  else if (type == DType::bf16) convert_to<bf16, To>(out, in, name, plus);
  else fail(ErrorKind::bad_input, "tensor ", quote(name), ": ", name_of(type), " is no type of weights");
  return out;
}

// llama.cpp goes by "phi-3" in the name of a model to let special tokens take the spaces behind them, and then wants to find the
// tokens of that tokenizer. Phi-4 is of the same architecture and has another.
std::string model_name(const Config& config, const Json& json, const GgufValues& tokenizer) {
  const std::string given = json.string("_name_or_path", "");
  if (config.architecture != "Phi3ForCausalLM") return given.empty() ? config.architecture : given;
  for (const auto& [key, value] : tokenizer) {
    const auto* tokens = std::get_if<std::vector<std::string>>(&value);
    if (!tokens || key != "tokenizer.ggml.tokens") continue;
    for (const char* token : {"<unk>", "<s>", "</s>", "<|endoftext|>"})
      if (std::find(tokens->begin(), tokens->end(), token) == tokens->end()) return "phi";
  }
  return "phi-3";
}

class GgufModel final : public ModelWriter {
 public:
  explicit GgufModel(const OutputRequest& request)
      : ModelWriter(request), exporter_(make_exporter(request.format, request.scheme)),
        config_(read_config(request.config)), architecture_(gguf_architecture(config_)) {
    GgufValues values = gguf_values(config_, architecture_, file_type(gguf_type(request.format)));
    const GgufValues tokenizer = gguf_tokenizer(request.source.path(), request.config, config_.vocab);
    values.emplace_back("general.name", model_name(config_, request.config, tokenizer));
    values.insert(values.end(), tokenizer.begin(), tokenizer.end());
    GgufRope rope = gguf_rope(config_, architecture_, request.config);
    values.insert(values.end(), rope.values.begin(), rope.values.end());
    rope_factors_ = std::move(rope.factors);

    std::vector<GgufTensor> tensors;
    for (const auto& [name, factors] : rope_factors_)
      tensors.push_back({name, GgmlType::f32, {static_cast<i64>(factors.size())}, 0, 0});
    const auto add = [&](const std::string& name, GgmlType type, std::vector<i64> shape) {
      const std::string theirs = gguf_name(name, architecture_);
      if (expert_of(name) >= 0) {
        if (stacks_[theirs].missing++ > 0) return;
        shape.insert(shape.begin(), config_.experts.count);
      }
      tensors.push_back({theirs, type, std::move(shape), 0, 0});
    };
    const auto copy = [&](const TensorInfo& to, const std::string& tensor, u64 first) {
      const bool wide = to.shape.size() == 1 || to.name.ends_with("gate.weight");  // norms, biases, routers
      others_.push_back({to, wide ? GgmlType::f32 : GgmlType::f16, tensor, first});
      add(to.name, others_.back().type, to.shape);
    };
    for (const PlannedLayer& layer : request.layers) {
      if (layer.spec.quantized()) add(layer.own_tensor(), gguf_type(layer.spec), {layer.rows, layer.cols});
      else if (layer.moved())
        copy(tensor_info(layer.own_tensor(), layer.weight_type, {layer.rows, layer.cols}), layer.tensor, layer.first);
    }
    for (const TensorInfo& tensor : untouched(request, *exporter_)) {
      if (config_.tied_head && tensor.name.starts_with("lm_head.")) continue;
      if (!gguf_name(tensor.name, architecture_).empty()) copy(tensor, tensor.name, 0);
    }
    // By name, so that a file does not depend on the format that its tensors came from.
    std::sort(tensors.begin(), tensors.end(), [](const GgufTensor& a, const GgufTensor& b) { return a.name < b.name; });
    writer_.emplace(output_.file(kGgufFile), values, std::move(tensors));
  }

  void write(const QuantizedLinear& layer) override {
    note_layer(layer);
    const std::string name = layer.name + ".weight";
    put(name, std::as_bytes(std::span(exporter_->encode(layer)[0].bytes)), layer.rows);
  }

  void copy_tensors() override {
    for (const auto& [name, factors] : rope_factors_) put_as(name, std::as_bytes(std::span(factors)));
    for (const auto& [tensor, type, from, first] : others_) {
      std::vector<std::byte> bytes(tensor.bytes);
      source_.read_part(from, first, bytes);
      const float plus = tensor.name.ends_with("norm.weight") ? config_.norm_plus : 0;  // llama.cpp adds nothing to its norms
      bytes = type == GgmlType::f32 ? converted<float>(bytes, tensor.dtype, tensor.name, plus)
                                    : converted<f16>(bytes, tensor.dtype, tensor.name);
      put(tensor.name, bytes, tensor.shape[0]);
    }
  }

  void finish() override {
    writer_->finish();
    note_head(kGgufFile, writer_->head_bytes());
  }

  u64 bytes() const override { return writer_->file_size(); }

 private:
  struct Other {
    TensorInfo to;
    GgmlType type;
    std::string tensor;  // of the source, from the byte `first` on
    u64 first;
  };
  struct Stack {  // of a layer's experts; written when none is missing
    i64 missing = 0;
    std::vector<std::byte> bytes = {};
  };

  void put(const std::string& name, std::span<const std::byte> bytes, i64 rows) {
    const std::string theirs = gguf_name(name, architecture_);
    if (const i64 expert = expert_of(name); expert >= 0) put_expert(theirs, bytes, expert);
    else if (architecture_.permuted && rotates(name)) put_as(theirs, to_pairs(bytes, rows, config_.head_dim));
    else put_as(theirs, bytes);
  }
  void put_expert(const std::string& name, std::span<const std::byte> bytes, i64 expert) {
    Stack& stack = stacks_.at(name);
    stack.bytes.resize(bytes.size() * static_cast<std::size_t>(config_.experts.count));
    std::copy(bytes.begin(), bytes.end(), stack.bytes.begin() + expert * static_cast<std::ptrdiff_t>(bytes.size()));
    if (--stack.missing > 0) return;
    put_as(name, stack.bytes);
    stack.bytes = {};
  }
  void put_as(const std::string& name, std::span<const std::byte> bytes) {
    note_tensor(name, digest_of(bytes));
    writer_->write(name, bytes);
  }

  const std::unique_ptr<Exporter> exporter_;
  const Config config_;
  const GgufArchitecture& architecture_;
  std::map<std::string, std::vector<float>> rope_factors_;  // by tensor
  std::vector<Other> others_;
  std::map<std::string, Stack> stacks_;  // by tensor
  std::optional<GgufWriter> writer_;
};

}  // namespace

std::unique_ptr<ModelWriter> make_gguf_model(const OutputRequest& request) { return std::make_unique<GgufModel>(request); }

}  // namespace signround
