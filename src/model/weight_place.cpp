#include "model/weight_place.h"

#include <charconv>
#include <optional>

namespace signround {
namespace {

// A linear of an expert is part `index` of `parts` of a stack's rows.
struct Part {
  std::string_view linear, stack;
  i64 index, parts;
};
constexpr Part kParts[] = {{"gate_proj", "gate_up_proj", 0, 2}, {"w1", "gate_up_proj", 0, 2},
                           {"up_proj", "gate_up_proj", 1, 2},   {"w3", "gate_up_proj", 1, 2},
                           {"down_proj", "down_proj", 0, 1},    {"w2", "down_proj", 0, 1}};

std::string newer_name(std::string name) {
  constexpr std::string_view kOld = ".block_sparse_moe.";
  const std::size_t at = name.find(kOld);
  return at == std::string::npos ? name : name.replace(at, kOld.size(), ".mlp.");
}

std::optional<WeightPlace> in_stack(const Checkpoint& checkpoint, std::string_view name) {
  constexpr std::string_view kExperts = ".experts.", kWeight = ".weight";
  const std::size_t at = name.find(kExperts);
  if (at == std::string_view::npos || !name.ends_with(kWeight)) return std::nullopt;
  const std::string prefix(name.substr(0, at + kExperts.size()));
  name.remove_prefix(prefix.size());
  name.remove_suffix(kWeight.size());
  i64 expert = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), expert);
  for (const Part& part : kParts) {
    if (error != std::errc() || std::string_view(end, name.data() + name.size()) != cat(".", part.linear)) continue;
    const TensorInfo* tensor = checkpoint.find(cat(prefix, part.stack));
    if (!tensor) return std::nullopt;
    const std::vector<i64>& shape = tensor->shape;
    check(shape.size() == 3 && shape[1] % part.parts == 0, ErrorKind::bad_input, checkpoint.file_of(tensor->name).string(),
          ": tensor ", quote(tensor->name), " is no stack of ", part.parts, " matrices an expert");
    if (expert < 0 || expert >= shape[0]) return std::nullopt;
    const u64 bytes = tensor->bytes / static_cast<u64>(shape[0] * part.parts);
    return WeightPlace{tensor, static_cast<u64>(expert * part.parts + part.index) * bytes, {shape[1] / part.parts, shape[2]}};
  }
  return std::nullopt;
}

}  // namespace

WeightPlace find_weight(const Checkpoint& checkpoint, const std::string& name) {
  const std::string newer = newer_name(name);
  for (const std::string& known : {name, newer})
    if (const TensorInfo* tensor = checkpoint.find(known)) return {tensor, 0, tensor->shape};
  if (const std::optional<WeightPlace> place = in_stack(checkpoint, newer)) return *place;
  const TensorInfo& absent = checkpoint.at(name);  // throws
  return {&absent, 0, absent.shape};
}

}  // namespace signround
