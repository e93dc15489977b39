// A Hugging Face model directory as it lies on the disk: config.json, the tensors by name, whichever file holds them, and the
// small files that go with them. A single .safetensors file serves too, without a configuration.
#pragma once
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "io/json.h"
#include "io/safetensors.h"

namespace signround {

// Errors name the file, and the tensor where there is one. Reading is safe from several threads.
class Checkpoint {
 public:
  // Reads the headers of all files. model.safetensors is taken before model.safetensors.index.json, as transformers does.
  explicit Checkpoint(const Path& path);

  Checkpoint(Checkpoint&&) = default;  // a copy would point into the original

  const Path& path() const { return path_; }
  const Json& config() const;  // Error{bad_input} if there is none
  const std::deque<SafetensorsFile>& files() const { return files_; }

  std::vector<const TensorInfo*> tensors() const;       // of all files, by name
  const TensorInfo* find(std::string_view name) const;  // null if absent
  const TensorInfo& at(std::string_view name) const;    // Error{bad_input} if absent
  const Path& file_of(std::string_view name) const;

  // Gives every tensor another name. Error{bad_input} if two come to have the same.
  void rename(const std::function<std::string(const std::string&)>& new_name);

  // The bytes of a tensor as they are in the file: all of them, or out.size() of them from the byte `first` on.
  void read(std::string_view name, std::span<std::byte> out) const;
  void read_part(std::string_view name, u64 first, std::span<std::byte> out) const;

  // What an output copies byte for byte: tokenizer, generation settings, chat template, what prepares pictures, licence; and a
  // model's own code where config.json names some in auto_map. Sorted; empty for a single file.
  std::vector<Path> side_files() const;

 private:
  struct Entry {
    const SafetensorsFile* file;
    TensorInfo tensor;
  };

  void add_file(const Path& path);
  void add_shards(const Path& index);
  void add(const SafetensorsFile& file, TensorInfo tensor);
  const Entry& entry(std::string_view name) const;

  Path path_;
  std::optional<Json> config_;
  std::deque<SafetensorsFile> files_;  // its elements stay where they are
  std::map<std::string, Entry, std::less<>> tensors_;
};

}  // namespace signround
