#include "export/convert.h"

#include "export/gguf.h"
#include "model/packed.h"

namespace signround {

ConvertReport convert(const ConvertOptions& options) {
  const Manifest manifest = Manifest::read(options.input);
  check(manifest.format != "fake" && !is_gguf(manifest.format), ErrorKind::bad_input, options.input, ": format ", manifest.format,
        is_gguf(manifest.format) ? " does not keep the original's other tensors" : " keeps no integers",
        "; export from another format of the same run");
  const Checkpoint source(options.input);
  const std::optional<PackedWeights> packed = PackedWeights::described_by(source.config());
  check(packed.has_value(), ErrorKind::bad_input, options.input, ": config.json has no quantization_config");

  std::vector<PlannedLayer> layers;
  std::set<std::string> replaced;
  const std::unique_ptr<Exporter> written = make_exporter(manifest.format, manifest.scheme);
  for (const auto& [name, layer] : manifest.layers) {
    layers.push_back({name, layer.rows, layer.cols, layer.spec, layer.weight_type});
    for (const TensorInfo& t : written->layout(name, layer.rows, layer.cols, layer.spec, layer.weight_type))
      replaced.insert(t.name);
  }
  // Layers at 16 bits count where engines want parts of one kind alike.
  std::vector<PlannedLayer> all = layers;
  for (const std::string& name : manifest.scheme.skipped) {
    const std::vector<i64>& shape = source.at(name + ".weight").shape;
    check(shape.size() == 2, ErrorKind::bad_input, name, ".weight: is no matrix");
    all.push_back({name, shape[0], shape[1], {.bits = 16, .group = -1, .symmetric = true}, DType::bf16});
  }
  const std::unique_ptr<ModelWriter> writer = make_model_writer({.out = options.output,
                                                                 .force = options.force,
                                                                 .format = options.format,
                                                                 .source = source,
                                                                 .config = manifest.config,
                                                                 .layers = all,
                                                                 .scheme = manifest.scheme,
                                                                 .replaced = std::move(replaced),
                                                                 .shard_bytes = options.shard_bytes});
  for (const auto& [name, layer] : manifest.layers) {
    const QuantizedLinear linear = packed->read(source, name, layer.weight_type);
    check(grid_digest(linear) == layer.grid, ErrorKind::verification, name,
          ": decodes to other integers or scales than were tuned; signround verify says more");
    writer->write(linear);
  }
  writer->copy_untouched();
  writer->finish();
  writer->conclude(manifest.provenance);
  return {writer->path(), static_cast<i64>(layers.size()), writer->bytes(), writer->loaders()};
}

}  // namespace signround
