#include "export/verify.h"

#include "export/gguf.h"
#include "export/gguf_model.h"
#include "export/gguf_names.h"
#include "export/manifest.h"
#include "io/checkpoint.h"
#include "io/sha256.h"
#include "model/packed.h"

namespace signround {
namespace {

constexpr u64 kMaxSideFile = u64{256} << 20;

template <class... Parts>
void require(bool ok, const Parts&... parts) {
  check(ok, ErrorKind::verification, parts...);
}

// In what way two grids of a layer differ, if it can be told.
void require_grid(const QuantizedLinear& found, const Manifest::Layer& wanted, const std::string& name) {
  require(found.spec == wanted.spec, name, ": config.json says ", found.spec.bits, " bits in groups of ", group_size(found.spec),
          found.spec.symmetric ? ", symmetric" : ", asymmetric", "; it was tuned with ", wanted.spec.bits, " in groups of ",
          group_size(wanted.spec), wanted.spec.symmetric ? ", symmetric" : ", asymmetric");
  require(found.rows == wanted.rows && found.cols == wanted.cols, name, ": is ", found.rows, " x ", found.cols,
          ", but was tuned as ", wanted.rows, " x ", wanted.cols);
  if (grid_digest(found) == wanted.grid) return;
  for (const int shift : {-1, 1}) {
    QuantizedLinear shifted = found;
    for (u8& z : shifted.zero) z = static_cast<u8>(z + shift);
    require(grid_digest(shifted) != wanted.grid, name, ": every zero point is off by ", -shift,
            ": config.json names another convention of zero points than the tensors have");
  }
  require(false, name, ": decodes to other integers or scales than were tuned");
}

void verify_layers(const Checkpoint& checkpoint, const Manifest& manifest) {
  const std::optional<PackedWeights> packed = PackedWeights::described_by(checkpoint.config());
  if (!packed)
    return require(manifest.format == "fake", "config.json: has no quantization_config, but the format is ", manifest.format);
  for (const auto& [name, layer] : manifest.layers) {
    require(packed->holds(checkpoint, name), name, ": is not there as the packed layer that config.json describes");
    require_grid(packed->read(checkpoint, name, layer.weight_type), layer, name);
  }
}

// Bits of the exponent are all set in infinities and NaN alone.
template <class Word>
void require_finite(const std::string& name, const std::vector<std::byte>& bytes, Word exponent) {
  const Word* words = reinterpret_cast<const Word*>(bytes.data());
  for (std::size_t i = 0; i < bytes.size() / sizeof(Word); ++i)
    require((words[i] & exponent) != exponent, "tensor ", quote(name), ": NaN or infinity at index ", i);
}

void verify_tensors(const Checkpoint& checkpoint, const Manifest& manifest) {
  for (const auto& [name, digest] : manifest.tensors) {
    const TensorInfo* tensor = checkpoint.find(name);
    require(tensor != nullptr, "tensor ", quote(name), ": is missing");
    std::vector<std::byte> bytes(tensor->bytes);
    checkpoint.read(name, bytes);
    if (tensor->dtype == DType::f32) require_finite<u32>(name, bytes, 0x7F800000u);
    if (tensor->dtype == DType::f16) require_finite<u16>(name, bytes, u16{0x7C00});
    if (tensor->dtype == DType::bf16) require_finite<u16>(name, bytes, u16{0x7F80});
    require(digest_of(bytes) == digest, "tensor ", quote(name), ": its bytes are not those that were written");
  }
  for (const TensorInfo* tensor : checkpoint.tensors())
    require(manifest.tensors.contains(tensor->name), "tensor ", quote(tensor->name), ": was not written by this program");
}

void verify_heads(const Path& directory, const Manifest& manifest) {
  for (const auto& [name, head] : manifest.heads) {
    const Path path = directory / name;
    const Manifest::Head found = Manifest::Head::of(path, head.bytes);
    require(found.file_bytes == head.file_bytes, path.string(), ": has ", found.file_bytes, " bytes; ", head.file_bytes,
            " were written");
    require(found.digest == head.digest, path.string(), ": what is in front of the tensors is not what was written");
  }
}

void verify_gguf(const Path& path, const Manifest& manifest) {
  const GgufFile file(path);
  const Config config = read_config(manifest.config);
  const GgufArchitecture& architecture = gguf_architecture(config);
  std::map<std::string, const GgufTensor*> tensors;
  for (const GgufTensor& tensor : file.tensors()) {
    require(manifest.tensors.contains(tensor.name), "tensor ", quote(tensor.name), ": was not written by this program");
    tensors[tensor.name] = &tensor;
  }
  for (const auto& [name, digest] : manifest.tensors) require(tensors.contains(name), "tensor ", quote(name), ": is missing");
  for (const auto& [name, layer] : manifest.layers) {
    const GgufTensor& tensor = *tensors.at(gguf_name(name + ".weight", architecture));
    const GgmlType type = gguf_type(layer.spec);
    require(tensor.type == type, "tensor ", quote(tensor.name), ": is ", name_of(tensor.type), ", but was tuned for ",
            name_of(type));
    std::vector<std::byte> bytes = file.read(tensor);
    if (const i64 expert = expert_of(name); expert >= 0) {  // one of those that the tensor stacks
      const auto size = static_cast<std::ptrdiff_t>(bytes.size()) / config.experts.count;
      require(expert < config.experts.count, name, ": there is no such expert");
      bytes = {bytes.begin() + expert * size, bytes.begin() + (expert + 1) * size};
    }
    if (architecture.permuted && rotates(name + ".weight")) bytes = to_halves(bytes, layer.rows, config.head_dim);
    require_grid(decode_gguf(bytes, name, layer.rows, layer.cols, layer.spec, layer.weight_type), layer, name);
  }
  for (const auto& [name, tensor] : tensors) {
    const std::vector<std::byte> bytes = file.read(*tensor);
    if (tensor->type == GgmlType::f32) require_finite<u32>(name, bytes, 0x7F800000u);
    if (tensor->type == GgmlType::f16) require_finite<u16>(name, bytes, u16{0x7C00});
    require(digest_of(bytes) == manifest.tensors.at(name), "tensor ", quote(name), ": its bytes are not those that were written");
  }
}

}  // namespace

VerifyReport verify(const Path& directory) {
  const Manifest manifest = Manifest::read(directory);
  for (const auto& [name, hash] : manifest.files)
    require(path_exists(directory / name), (directory / name).string(), ": is missing");
  try {
    if (is_gguf(manifest.format)) {
      verify_gguf(directory / kGgufFile, manifest);
    } else {
      const Checkpoint checkpoint(directory);
      verify_layers(checkpoint, manifest);
      verify_tensors(checkpoint, manifest);
    }
    verify_heads(directory, manifest);
  } catch (const Error& e) {
    if (e.kind != ErrorKind::bad_input) throw;
    fail(ErrorKind::verification, e.message);
  }
  for (const auto& [name, hash] : manifest.files)
    require(sha256_text(read_file(directory / name, kMaxSideFile)) == hash, (directory / name).string(),
            ": is not the file that was written");
  return {manifest.format, static_cast<i64>(manifest.layers.size()), static_cast<i64>(manifest.tensors.size()),
          static_cast<i64>(manifest.files.size())};
}

}  // namespace signround
