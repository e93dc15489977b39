#include "pipeline/read_ahead.h"

namespace signround {

void ReadAhead::begin(const Program& program) {
  std::vector<std::pair<std::string, Tensor>> wanted;
  for (const WeightRef& ref : program.weights) {
    const std::string name = program.prefix + ref.name;
    const DType type = source_.weight_type(name);
    wanted.emplace_back(name, ref.cols > 0 ? view(nullptr, type, ref.rows, ref.cols) : view(nullptr, type, ref.rows));
  }
  reading_ = std::async(std::launch::async, [this, wanted] {
    Weights read;
    for (const auto& [name, shape] : wanted) read[name] = source_.read(name, shape, true);
    return read;
  });
}

std::vector<std::byte> ReadAhead::read(const std::string& name, Tensor shape, bool refuse_nonfinite) const {
  if (reading_.valid()) read_ = reading_.get();
  const auto found = read_.find(name);
  if (found == read_.end()) return source_.read(name, shape, refuse_nonfinite);
  std::vector<std::byte> bytes = std::move(found->second);
  read_.erase(found);
  return bytes;
}

}  // namespace signround
