#include "export/model_writer.h"

#include <cstdio>

namespace signround {
namespace {

constexpr u64 kShardBytes = u64{5} << 30;  // the field's custom: files of at most 5 GiB

std::string shard_name(size_t index, size_t count) {
  if (count == 1) return "model.safetensors";
  char name[64];
  std::snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", index + 1, count);
  return name;
}

std::span<const std::byte> bytes_of(const std::vector<u8>& v) { return std::as_bytes(std::span(v)); }

}  // namespace

ModelWriter::ModelWriter(const Path& out, bool force, const Checkpoint& source, const std::string& format,
                         const std::vector<PlannedLayer>& layers, const ExportScheme& scheme)
    : source_(source), exporter_(make_exporter(format, scheme)), output_(out, force, source.path()) {
  std::map<std::string, const PlannedLayer*> quantized;  // by the name of the weight
  for (const PlannedLayer& layer : layers) {
    if (!layer.spec.quantized()) continue;
    exporter_->require(layer.name, layer.rows, layer.cols, layer.spec);
    quantized[layer.name + ".weight"] = &layer;
  }
  std::vector<TensorInfo> tensors;
  for (const TensorInfo* tensor : source.tensors()) {
    const auto found = quantized.find(tensor->name);
    if (found == quantized.end()) {
      copied_.push_back(*tensor);
      tensors.push_back(*tensor);
      continue;
    }
    const PlannedLayer& layer = *found->second;
    for (TensorInfo& made : exporter_->layout(layer.name, layer.rows, layer.cols, layer.spec, layer.weight_type))
      tensors.push_back(std::move(made));
  }
  open_shards(tensors);
}

void ModelWriter::open_shards(const std::vector<TensorInfo>& tensors) {
  std::vector<std::vector<TensorInfo>> groups(1);
  u64 size = 0;
  for (const TensorInfo& tensor : tensors) {
    if (size > 0 && size + tensor.bytes > kShardBytes) {
      groups.emplace_back();
      size = 0;
    }
    size += tensor.bytes;
    shard_of_[tensor.name] = groups.size() - 1;
    groups.back().push_back(tensor);
  }
  for (size_t i = 0; i < groups.size(); ++i) {
    names_.push_back(shard_name(i, groups.size()));
    shards_.push_back(std::make_unique<SafetensorsWriter>(output_.file(names_[i]), std::move(groups[i])));
    bytes_ += shards_.back()->file_size();
  }
}

void ModelWriter::write(const QuantizedLinear& layer) {
  for (const EncodedTensor& tensor : exporter_->encode(layer))
    shard_of(tensor.info.name).write(tensor.info.name, bytes_of(tensor.bytes));
}

void ModelWriter::copy_tensor(const TensorInfo& tensor) {
  std::vector<std::byte> bytes(tensor.bytes);
  source_.read(tensor.name, bytes);
  shard_of(tensor.name).write(tensor.name, bytes);
}

void ModelWriter::write_index() {
  Json map = Json::object({});
  u64 total = 0;
  for (const auto& [tensor, shard] : shard_of_) map.set(tensor, names_[shard]);
  for (const auto& shard : shards_)
    for (const TensorInfo& tensor : shard->tensors()) total += tensor.bytes;
  const Json index = Json::object({{"metadata", Json::object({{"total_size", total}})}, {"weight_map", std::move(map)}});
  output_.write("model.safetensors.index.json", to_text(index, 2) + "\n");
}

void ModelWriter::finish() {
  for (const TensorInfo& tensor : copied_) copy_tensor(tensor);
  for (const auto& shard : shards_) shard->finish();
  if (shards_.size() > 1) write_index();
  Json config = source_.config();
  exporter_->configure(config);
  output_.write("config.json", to_text(config, 2) + "\n");
  if (const Json* q = config.find("quantization_config")) output_.write(exporter_->config_file(), to_text(*q, 2));
  for (const Path& file : source_.side_files()) output_.copy(file, file.filename());
  output_.commit();
}

}  // namespace signround
