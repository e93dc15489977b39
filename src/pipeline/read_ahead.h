// The weights of the block that comes next, read and checked by a thread while the present one is tuned; those of the first thing
// to run while the device wakes up.
#pragma once
#include <future>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "model/model.h"

namespace signround {

class ReadAhead final : public WeightSource {
 public:
  ReadAhead(const WeightSource& source, const std::optional<Program>& first) : source_(source) {
    if (first) begin(*first);
  }

  // Begins to read all weights of the program: what was read for an earlier one must be taken. One block's weights are held in
  // host memory at the most. NaN and infinity are refused.
  void begin(const Program& program);

  DType weight_type(const std::string& name) const override { return source_.weight_type(name); }
  // What begin() read, or else reads now. Throws here what the reading thread met.
  std::vector<std::byte> read(const std::string& name, Tensor shape, bool refuse_nonfinite) const override;

 private:
  using Weights = std::map<std::string, std::vector<std::byte>>;
  const WeightSource& source_;
  mutable std::future<Weights> reading_;
  mutable Weights read_;
};

}  // namespace signround
