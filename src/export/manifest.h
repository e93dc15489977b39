// signround.json in an output: how it was made and the digests of what it must hold. `verify` and `export` live on it.
#pragma once
#include <map>

#include "export/export.h"

namespace signround {

inline constexpr const char* kManifestName = "signround.json";

// Of the original and of the output, on one text.
struct Perplexities {
  std::string text;  // name of the file
  i64 tokens = 0;    // scored
  double before = 0, after = 0;
};
Json to_json(const std::optional<Perplexities>& perplexity);  // null: not measured

// What was done, beside the numbers of the scheme.
struct Provenance {
  std::string command;      // "signround quantize MODEL -o OUT ...", without what changes no byte
  std::string calibration;  // digest of the token ids of all samples; empty: no tuning
  i64 seed = 0;
  std::optional<Perplexities> perplexity = {};
};

struct Manifest {
  struct Layer {
    i64 rows, cols;
    QuantSpec spec;
    DType weight_type;
    std::string grid;  // grid_digest()
  };
  // A file of tensors in front of the first of them: types, shapes and places, in GGUF the metadata too.
  struct Head {
    u64 bytes, file_bytes;
    std::string digest;
    static Head of(const Path& file, u64 bytes);
  };
  std::string format;
  ExportScheme scheme;
  Provenance provenance;
  Json config;                                 // config.json of the original
  std::map<std::string, Layer> layers;         // packed ones, by name
  std::map<std::string, std::string> tensors;  // digest of the bytes of each
  std::map<std::string, Head> heads;           // of each file of tensors
  std::map<std::string, std::string> files;    // SHA-256 of each small file

  std::string text() const;  // of the file; its last member is the digest of all others
  // Throws Error{bad_input} naming the file, Error{verification} if it was changed.
  static Manifest read(const Path& directory);
};

// Of codes, zero points, scales, factors and offsets, in this order: the same for every format of one tuning.
std::string grid_digest(const QuantizedLinear& layer);

}  // namespace signround
