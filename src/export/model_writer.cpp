#include "export/model_writer.h"

#include "export/card.h"
#include "export/gguf.h"
#include "export/gguf_model.h"
#include "export/safetensors_model.h"
#include "io/sha256.h"

namespace signround {
namespace {

constexpr u64 kMaxSideFile = u64{256} << 20;

}  // namespace

void require_format(const std::string& format, const std::vector<PlannedLayer>& layers, const ExportScheme& scheme) {
  const std::unique_ptr<Exporter> exporter = make_exporter(format, scheme);
  const bool holds_two_levels = is_gguf(format) || format == "fake";
  for (const PlannedLayer& layer : layers)
    check(!layer.spec.two_levels() || holds_two_levels, ErrorKind::usage, layer.name, ": format ", format,
          " has no scales of two levels; the nearest beside a K-quant is --format fake");
  for (const PlannedLayer& layer : layers)
    if (layer.spec.quantized()) exporter->require(layer.name, layer.rows, layer.cols, layer.spec);
}

ModelWriter::ModelWriter(const OutputRequest& request)
    : source_(request.source),
      output_(request.out, request.force, request.source.path()),
      loaders_(who_loads(request.format, request.layers)) {
  manifest_.format = request.format;
  manifest_.scheme = request.scheme;
  manifest_.config = request.config;
}

std::vector<TensorInfo> ModelWriter::untouched(const OutputRequest& request, const Exporter& exporter) const {
  std::set<std::string> replaced = request.replaced;
  for (const PlannedLayer& layer : request.layers)
    if (layer.spec.quantized() || (layer.moved() && !exporter.keeps_places()))
      replaced.insert(layer.moved() ? layer.tensor : layer.own_tensor());
  std::vector<TensorInfo> rest;
  for (const TensorInfo* tensor : source_.tensors())
    if (!replaced.contains(tensor->name)) rest.push_back(*tensor);
  return rest;
}

void ModelWriter::note_layer(const QuantizedLinear& layer) {
  manifest_.layers[layer.name] = {layer.rows, layer.cols, layer.spec, layer.weight_type, grid_digest(layer)};
}

void ModelWriter::note_tensor(const std::string& name, const std::string& digest) {
  manifest_.tensors[name] = digest;
}

void ModelWriter::note_head(const std::string& file, u64 bytes) {
  manifest_.heads[file] = Manifest::Head::of(output_.file(file), bytes);
}

void ModelWriter::write_file(const std::string& name, const std::string& content) {
  manifest_.files[name] = sha256_text(content);
  output_.write(name, content);
}

void ModelWriter::copy_untouched() {
  copy_tensors();
  for (const Path& file : source_.side_files()) write_file(file.filename().string(), read_file(file, kMaxSideFile));
}

void ModelWriter::conclude(const Provenance& provenance) {
  manifest_.provenance = provenance;
  write_file("README.md", model_card(manifest_, loaders_, source_));
  output_.write(kManifestName, manifest_.text());
  output_.commit();
}

std::unique_ptr<ModelWriter> make_model_writer(const OutputRequest& request) {
  require_format(request.format, request.layers, request.scheme);
  return is_gguf(request.format) ? make_gguf_model(request) : make_safetensors_model(request);
}

}  // namespace signround
