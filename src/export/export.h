// What an exporter sees: integers and scales as they were tuned, never weights to round again. One file a format family.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "io/json.h"
#include "io/safetensors.h"
#include "model/quantized.h"

namespace signround {

// One tensor ready to be written.
struct EncodedTensor {
  TensorInfo info;
  std::vector<u8> bytes;
};

// What the configuration of the output has to say about how it was made.
struct ExportScheme {
  QuantSpec spec;                                             // of most layers
  std::vector<std::string> skipped;                           // linear layers of the blocks that stay at 16 bits
  std::vector<std::pair<std::string, QuantSpec>> exceptions;  // layers with another grid
  std::string block_prefix;                                   // "model.layers"
  bool transposed = false;                                    // the original holds linears as [in, out]; so does `fake`
  i64 iters = 0, nsamples = 0, seqlen = 0, batch_size = 0, accumulate = 1;
  std::optional<double> lr, minmax_lr;  // default 1/iters; minmax_lr default lr
};

// A linear layer of the model, and the grid chosen for it.
struct PlannedLayer {
  std::string name;  // "model.layers.0.mlp.up_proj"
  i64 rows = 0, cols = 0;
  QuantSpec spec;  // not quantized(): stays as it is
  DType weight_type = DType::bf16;
  // Where the original has the weight: a tensor, and the byte where it begins. Empty: a tensor of its own, NAME.weight.
  std::string tensor = {};
  u64 first = 0;

  std::string own_tensor() const { return name + ".weight"; }
  bool moved() const { return !tensor.empty() && tensor != own_tensor(); }  // elsewhere: stacked with others, or renamed
};

class Exporter {
 public:
  virtual ~Exporter() = default;
  // Throws Error{usage} that names the nearest possible choice if this format cannot hold such a layer. Called before tuning.
  virtual void require(const std::string& name, i64 rows, i64 cols, const QuantSpec& spec) const = 0;
  // Names, types and shapes of the tensors that a layer becomes, known before tuning: the file's header is written first.
  virtual std::vector<TensorInfo> layout(const std::string& name, i64 rows, i64 cols, const QuantSpec& spec,
                                         DType weight_type) const = 0;
  // The tensors of layout(), in the same order.
  virtual std::vector<EncodedTensor> encode(const QuantizedLinear& layer) const = 0;
  // Adds what the format wants to config.json. What it sets as "quantization_config" becomes the file config_file() as well.
  virtual void configure(Json& config) const = 0;
  // Weights go back to where the original had them; else each layer has tensors of its own name.
  virtual bool keeps_places() const { return false; }
  virtual std::string config_file() const { return "quantization_config.json"; }
};

// Size included; the place in the file is the writer's.
TensorInfo tensor_info(std::string name, DType dtype, std::vector<i64> shape);

// Zeroed, to be filled.
std::vector<EncodedTensor> empty_tensors(std::vector<TensorInfo> infos);

// The readers of GPTQ and AWQ compute in half precision: their scales are F16, and what config.json calls the type decides.
void use_float16(Json& config);

// As configurations have it: a group of -1 is the whole row.
inline i64 group_size(const QuantSpec& spec) { return spec.group > 0 ? spec.group : -1; }

// Layers that engines join into one are told by the name of what they become: "model.layers.0.self_attn.q_proj" ->
// "model.layers.0.self_attn.qkv_proj", gate_proj and up_proj -> gate_up_proj, and all of a block's experts -> "....mlp.experts".
// Empty for layers that stay by themselves.
std::string fused_name(const std::string& layer);

// Formats by name (export.cpp has the table). Throws Error{usage} for an unknown name, with the nearest one.
std::unique_ptr<Exporter> make_exporter(const std::string& format, const ExportScheme& scheme = {});

}  // namespace signround
