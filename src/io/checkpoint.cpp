#include "io/checkpoint.h"

#include <algorithm>
#include <set>
#include <system_error>

#include "io/side_files.h"

namespace signround {

namespace {

// A file of the model's own directory, whatever the index may say: never a path.
void check_plain_file_name(std::string_view name) {
  const bool control = std::any_of(name.begin(), name.end(), [](char c) { return static_cast<u8>(c) < 0x20 || c == 0x7F; });
  check(!name.empty() && name != "." && name != ".." && name.find_first_of("/\\") == std::string_view::npos && !control,
        ErrorKind::bad_input, quote(name), " is no plain file name");
}

}  // namespace

Checkpoint::Checkpoint(const Path& path) : path_(path) {
  check(path_exists(path), ErrorKind::bad_input, path.string(), ": no such file or directory");
  if (!is_folder(path)) {
    add_file(path);
    return;
  }
  const Path config = path / "config.json", single = path / "model.safetensors", index = path / "model.safetensors.index.json";
  if (path_exists(config)) config_ = read_json(config);
  if (path_exists(single)) {
    add_file(single);
  } else if (path_exists(index)) {
    add_shards(index);
  } else {
    fail(ErrorKind::bad_input, path.string(), ": has neither model.safetensors nor model.safetensors.index.json",
         path_exists(path / "pytorch_model.bin") ? "; convert its pytorch_model.bin to safetensors first" : "");
  }
}

void Checkpoint::add_file(const Path& path) {
  const SafetensorsFile& file = files_.emplace_back(path);
  for (const TensorInfo& tensor : file.tensors()) add(file, tensor);
}

void Checkpoint::add(const SafetensorsFile& file, TensorInfo tensor) {
  const std::string name = tensor.name;
  const auto [place, is_new] = tensors_.try_emplace(name, Entry{&file, std::move(tensor)});
  check(is_new, ErrorKind::bad_input, file.path().string(), ": tensor ", quote(name), ": is in ",
        place->second.file->path().filename().string(), " too");
}

void Checkpoint::rename(const std::function<std::string(const std::string&)>& new_name) {
  std::map<std::string, Entry, std::less<>> before = std::move(tensors_);
  tensors_.clear();
  for (auto& [name, entry] : before) {
    entry.tensor.name = new_name(name);
    add(*entry.file, std::move(entry.tensor));
  }
}

// The index: {"metadata": {"total_size": advisory}, "weight_map": {tensor: file}}.
void Checkpoint::add_shards(const Path& index) {
  const Json json = read_json(index);
  within(index.string(), [&] {
    std::set<std::string> names;
    for (const JsonMember& member : json.object("weight_map")) {
      within(cat("weight_map: tensor ", quote(member.key)), [&] {
        check_plain_file_name(member.value.string());
        names.insert(member.value.string());
      });
    }
    check(!names.empty(), ErrorKind::bad_input, "weight_map is empty");
    for (const std::string& name : names) add_file(path_ / name);
    for (const JsonMember& member : json.object("weight_map")) {
      const auto found = tensors_.find(member.key);
      check(found != tensors_.end() && found->second.file->path() == path_ / member.value.string(), ErrorKind::bad_input,
            "tensor ", quote(member.key), ": is not in ", member.value.string(), ", where weight_map has it");
    }
  });
}

const Json& Checkpoint::config() const {
  check(config_.has_value(), ErrorKind::bad_input, path_.string(), ": has no config.json; a model directory is needed");
  return *config_;
}

std::vector<const TensorInfo*> Checkpoint::tensors() const {
  std::vector<const TensorInfo*> all;
  for (const auto& [name, entry] : tensors_) all.push_back(&entry.tensor);
  return all;
}

const TensorInfo* Checkpoint::find(std::string_view name) const {
  const auto found = tensors_.find(name);
  return found == tensors_.end() ? nullptr : &found->second.tensor;
}

const Checkpoint::Entry& Checkpoint::entry(std::string_view name) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) fail(ErrorKind::bad_input, path_.string(), ": has no tensor ", quote(name));
  return found->second;
}

const TensorInfo& Checkpoint::at(std::string_view name) const { return entry(name).tensor; }
const Path& Checkpoint::file_of(std::string_view name) const { return entry(name).file->path(); }

void Checkpoint::read(std::string_view name, std::span<std::byte> out) const {
  const Entry& from = entry(name);
  within(cat("tensor ", quote(name)), [&] { from.file->read(from.tensor, out); });
}

void Checkpoint::read_part(std::string_view name, u64 first, std::span<std::byte> out) const {
  const Entry& from = entry(name);
  within(cat("tensor ", quote(name)), [&] { from.file->read_part(from.tensor, first, out); });
}

std::vector<Path> Checkpoint::side_files() const {
  return signround::side_files(path_, config_ && config_->find("auto_map"));
}

}  // namespace signround
