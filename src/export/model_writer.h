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
  // Makes OUT.partial with room for every tensor: Error{io} if the disk has too little. Error{usage} if the format cannot hold a
  // layer.
  ModelWriter(const Path& out, bool force, const Checkpoint& source, const std::string& format,
              const std::vector<PlannedLayer>& layers, const ExportScheme& scheme);

  void write(const QuantizedLinear& layer);
  // What is not quantized, byte for byte; configuration, index and side files. Then the directory takes its name: before that
  // nothing loadable exists.
  void finish();

  std::string path() const { return output_.path().string(); }
  u64 bytes() const { return bytes_; }  // of all safetensors files

 private:
  void open_shards(const std::vector<TensorInfo>& tensors);
  void copy_tensor(const TensorInfo& tensor);
  void write_index();
  SafetensorsWriter& shard_of(const std::string& tensor) { return *shards_[shard_of_.at(tensor)]; }

  const Checkpoint& source_;
  std::unique_ptr<Exporter> exporter_;
  OutputDir output_;
  u64 bytes_ = 0;
  std::vector<std::string> names_;  // of the shards' files
  std::vector<std::unique_ptr<SafetensorsWriter>> shards_;
  std::map<std::string, size_t> shard_of_;  // by tensor
  std::vector<TensorInfo> copied_;
};

}  // namespace signround
