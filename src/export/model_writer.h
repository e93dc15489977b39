// Writes a quantized model directory block by block: every tensor's place in every file is known before the first is tuned.
#pragma once
#include <set>

#include "export/loaders.h"
#include "export/manifest.h"
#include "io/checkpoint.h"
#include "io/output_dir.h"

namespace signround {

inline constexpr u64 kShardBytes = u64{5} << 30;  // the field's custom

// One output. The source must outlive its writer.
struct OutputRequest {
  Path out;
  bool force = false;
  std::string format;
  const Checkpoint& source;            // of the tensors that are copied, and of the side files
  Json config;                         // config.json of the original
  const std::vector<PlannedLayer>& layers;
  ExportScheme scheme;
  std::set<std::string> replaced = {};  // further tensors of the source that the layers take the place of, beside their own
  u64 shard_bytes = kShardBytes;       // a file of the output is larger only if one tensor is
};

// Throws Error{usage} naming the nearest possible choice if the format cannot hold one of the layers.
void require_format(const std::string& format, const std::vector<PlannedLayer>& layers, const ExportScheme& scheme);

class ModelWriter {
 public:
  virtual ~ModelWriter() = default;
  virtual void write(const QuantizedLinear& layer) = 0;
  // What is not quantized, and side files. Once, before or after the layers: the output is the same.
  void copy_untouched();
  // Configuration and index: partial() can be loaded then. Error{bug} if a tensor was not written.
  virtual void finish() = 0;
  // Manifest and model card. Then the directory takes its name: before that it does not exist.
  void conclude(const Provenance& provenance);

  const Path& partial() const { return output_.partial(); }
  std::string path() const { return output_.path().string(); }
  virtual u64 bytes() const = 0;  // of all files with tensors
  const std::vector<Verdict>& loaders() const { return loaders_; }

 protected:
  explicit ModelWriter(const OutputRequest& request);
  virtual void copy_tensors() = 0;
  // The tensors of the source that are written as they are.
  std::vector<TensorInfo> untouched(const OutputRequest& request, const Exporter& exporter) const;
  void note_layer(const QuantizedLinear& layer);                                  // its grid, in the manifest
  void note_tensor(const std::string& name, const std::string& digest);
  void note_head(const std::string& file, u64 bytes);                             // of a finished file of tensors: its digest
  void write_file(const std::string& name, const std::string& content);           // and its digest

  const Checkpoint& source_;
  OutputDir output_;
  Manifest manifest_;

 private:
  std::vector<Verdict> loaders_;
};

// Makes OUT.partial with room for every tensor: Error{io} if the disk has too little. Error{usage} as require_format() has it.
std::unique_ptr<ModelWriter> make_model_writer(const OutputRequest& request);

}  // namespace signround
