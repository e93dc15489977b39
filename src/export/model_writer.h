// Writes a quantized model directory block by block: every tensor's place in every file is known before the first is tuned.
#pragma once
#include <map>

#include "export/export.h"
#include "io/checkpoint.h"
#include "io/output_dir.h"

namespace signround {

// A linear layer of the model, and the grid chosen for it.
struct PlannedLayer {
  std::string name;  // "model.layers.0.mlp.up_proj"
  i64 rows = 0, cols = 0;
  QuantSpec spec;  // not quantized(): stays as it is
  DType weight_type = DType::bf16;
};

class ModelWriter {
 public:
  // Makes OUT.partial with its safetensors headers and copies every tensor that is not quantized, byte for byte. Throws Error{io} that
  // names the bytes needed if the disk has no room for them.
  ModelWriter(const std::string& path, bool force, const Checkpoint& source, const std::string& format,
              const std::vector<PlannedLayer>& layers);

  void write(const QuantizedLinear& layer);
  // Configuration, index and side files; then the directory takes its name. Before that nothing loadable exists.
  void finish(const ExportScheme& scheme);

  const std::string& path() const { return path_; }
  i64 bytes() const { return bytes_; }  // of all tensors

 private:
  void plan_shards(const std::vector<PlannedLayer>& layers);

  std::string path_;
  const Checkpoint& source_;
  std::unique_ptr<Exporter> exporter_;
  OutputDir output_;
  i64 bytes_ = 0;
  std::vector<std::string> shard_names_;
  std::vector<std::unique_ptr<SafetensorsWriter>> shards_;
  std::map<std::string, size_t> shard_of_;  // by tensor
};

}  // namespace signround
