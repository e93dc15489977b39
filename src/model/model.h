// A model directory opened for use: configuration, family, weights by name, whether stored plain or packed.
#pragma once
#include <optional>
#include <string>

#include "io/checkpoint.h"
#include "model/family.h"
#include "model/packed.h"

namespace signround {

class Model {
 public:
  // Throws Error{bad_input} if the directory, its config.json or its tensors are not what the family's programs ask for.
  explicit Model(const std::string& directory);

  const Checkpoint& checkpoint() const { return checkpoint_; }
  const Config& config() const { return config_; }
  const Family& family() const { return family_; }
  bool packed() const { return packed_.has_value(); }

  // Element type of a weight on the backend: that of the file, or of the dequantized weight.
  DType weight_type(const std::string& name) const;
  // Reads (and dequantizes) a weight to the backend. refuse_nonfinite: NaN or infinity is Error{bad_input} with tensor and index.
  void load(Backend& backend, Tensor dst, const std::string& name, bool refuse_nonfinite) const;

 private:
  bool is_packed(const std::string& weight) const;
  void check_shapes(const Program& program) const;

  Checkpoint checkpoint_;
  Config config_;
  const Family& family_;
  std::optional<PackedWeights> packed_;
};

}  // namespace signround
