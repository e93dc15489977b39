#include "export/safetensors_model.h"

#include <algorithm>
#include <cstdio>

#include "io/sha256.h"

namespace signround {
namespace {

constexpr u64 kPart = 64 * Digest::kPiece;  // of a tensor that is copied: what is held of it at a time

std::string shard_name(size_t index, size_t count) {
  if (count == 1) return "model.safetensors";
  char name[64];
  std::snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", index + 1, count);
  return name;
}

class SafetensorsModel final : public ModelWriter {
 public:
  explicit SafetensorsModel(const OutputRequest& request)
      : ModelWriter(request), exporter_(make_exporter(request.format, request.scheme)) {
    // In the order of the original's names, so that an output does not depend on the format that its tensors came from.
    std::map<std::string, std::vector<TensorInfo>> tensors;
    for (const PlannedLayer& layer : request.layers) {
      const std::string own = layer.own_tensor();
      if (layer.moved() && exporter_->keeps_places()) {
        if (!layer.spec.quantized()) continue;
        Stack& stack = stacks_[layer.tensor];
        ++stack.missing;
        tensors[layer.tensor] = {request.source.at(layer.tensor)};
        places_[layer.name] = {layer.tensor, layer.first};
      } else if (layer.spec.quantized()) {
        tensors[own] = exporter_->layout(layer.name, layer.rows, layer.cols, layer.spec, layer.weight_type);
      } else if (layer.moved()) {
        tensors[own] = {tensor_info(own, layer.weight_type, {layer.rows, layer.cols})};
        copies_.push_back({tensors[own][0], layer.tensor, layer.first});
      }
    }
    for (const TensorInfo& tensor : untouched(request, *exporter_)) {
      tensors[tensor.name] = {tensor};
      copies_.push_back({tensor, tensor.name, 0});
    }
    open_shards(tensors, request.shard_bytes);
  }

  void write(const QuantizedLinear& layer) override {
    note_layer(layer);
    for (const EncodedTensor& tensor : exporter_->encode(layer)) {
      const std::span<const std::byte> bytes = std::as_bytes(std::span(tensor.bytes));
      const auto place = places_.find(layer.name);
      if (place == places_.end()) put(tensor.info.name, bytes);
      else put_back(place->second, bytes);
    }
  }

  void copy_tensors() override {
    std::vector<std::byte> buffer;
    for (const Copy& copy : copies_) {
      Digest digest;
      for (u64 done = 0; done < copy.to.bytes; done += buffer.size()) {
        buffer.resize(std::min(kPart, copy.to.bytes - done));
        source_.read_part(copy.tensor, copy.first + done, buffer);
        digest.update(buffer);
        shards_[shard_of_.at(copy.to.name)]->write(copy.to.name, buffer);
      }
      note_tensor(copy.to.name, digest.text());
    }
  }

  void finish() override {
    for (size_t i = 0; i < shards_.size(); ++i) {
      shards_[i]->finish();
      note_head(names_[i], shards_[i]->tensors().front().offset);
    }
    if (shards_.size() > 1) write_index();
    Json config = manifest_.config;
    exporter_->configure(config);
    write_file("config.json", to_text(config, 2) + "\n");
    if (const Json* q = config.find("quantization_config")) write_file(exporter_->config_file(), to_text(*q, 2));
  }

  u64 bytes() const override {
    u64 sum = 0;
    for (const auto& shard : shards_) sum += shard->file_size();
    return sum;
  }

 private:
  struct Copy {
    TensorInfo to;
    std::string tensor;  // of the source, from the byte `first` on
    u64 first;
  };
  struct Place {
    std::string tensor;
    u64 first;
  };
  // A tensor of the source whose parts are replaced one by one; written when none is missing.
  struct Stack {
    i64 missing = 0;
    std::vector<std::byte> bytes = {};
  };

  void put_back(const Place& place, std::span<const std::byte> part) {
    Stack& stack = stacks_.at(place.tensor);
    if (stack.bytes.empty()) {
      stack.bytes.resize(source_.at(place.tensor).bytes);
      source_.read(place.tensor, stack.bytes);  // of parts that nothing replaces
    }
    std::copy(part.begin(), part.end(), stack.bytes.begin() + static_cast<std::ptrdiff_t>(place.first));
    if (--stack.missing > 0) return;
    put(place.tensor, stack.bytes);
    stack.bytes = {};
  }

  void put(const std::string& name, std::span<const std::byte> bytes) {
    note_tensor(name, digest_of(bytes));
    shards_[shard_of_.at(name)]->write(name, bytes);
  }

  void open_shards(const std::map<std::string, std::vector<TensorInfo>>& tensors, u64 limit) {
    std::vector<std::vector<TensorInfo>> groups(1);
    u64 size = 0;
    for (const auto& [key, list] : tensors)
      for (const TensorInfo& tensor : list) {
        if (size > 0 && size + tensor.bytes > limit) {
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
    }
  }

  void write_index() {
    Json map = Json::object({});
    u64 total = 0;
    for (const auto& [tensor, shard] : shard_of_) map.set(tensor, names_[shard]);
    for (const auto& shard : shards_)
      for (const TensorInfo& tensor : shard->tensors()) total += tensor.bytes;
    const Json index = Json::object({{"metadata", Json::object({{"total_size", total}})}, {"weight_map", std::move(map)}});
    write_file("model.safetensors.index.json", to_text(index, 2) + "\n");
  }

  std::unique_ptr<Exporter> exporter_;
  std::vector<std::string> names_;  // of the shards' files
  std::vector<std::unique_ptr<SafetensorsWriter>> shards_;
  std::map<std::string, size_t> shard_of_;  // by tensor
  std::vector<Copy> copies_;
  std::map<std::string, Stack> stacks_;  // by tensor
  std::map<std::string, Place> places_;  // of layers in them, by layer
};

}  // namespace

std::unique_ptr<ModelWriter> make_safetensors_model(const OutputRequest& request) {
  return std::make_unique<SafetensorsModel>(request);
}

}  // namespace signround
