// A model directory opened for use: configuration, family, weights by name, whether stored plain or packed.
#pragma once
#include <optional>
#include <set>
#include <string>

#include "io/checkpoint.h"
#include "model/family.h"
#include "model/packed.h"
#include "model/weight_place.h"

namespace signround {

// Where weights come from: a checkpoint, or random numbers to measure with.
struct WeightSource {
  virtual ~WeightSource() = default;
  // Names are those of a Program's weights, experts' with their '*'.
  // Element type of a weight on the backend: that of the file, or of the dequantized weight.
  virtual DType weight_type(const std::string& name) const = 0;
  // A weight's elements: of shape's dimensions and type, its data is not looked at. refuse_nonfinite: NaN or infinity is
  // Error{bad_input} with tensor and index. Several threads may read.
  virtual std::vector<std::byte> read(const std::string& name, Tensor shape, bool refuse_nonfinite) const = 0;
};

class Model final : public WeightSource {
 public:
  // Throws Error{bad_input} if the directory, its config.json or its tensors are not what the family's programs ask for.
  explicit Model(const std::string& directory);

  const Checkpoint& checkpoint() const { return checkpoint_; }
  const Config& config() const { return config_; }
  const Family& family() const { return family_; }
  bool packed() const { return packed_.has_value(); }

  DType weight_type(const std::string& name) const override;
  std::vector<std::byte> read(const std::string& name, Tensor shape, bool refuse_nonfinite) const override;

 private:
  bool is_packed(const std::string& weight) const;
  std::vector<std::byte> read_unit_rows(const std::string& name, Tensor shape) const;
  void check_shapes(const Program& program);
  void check_shape(const std::string& name, const WeightRef& w);
  void read_one(const std::string& name, Tensor to, bool refuse_nonfinite) const;

  Checkpoint checkpoint_;
  Config config_;
  const Family& family_;
  std::optional<PackedWeights> packed_;
  std::set<std::string> transposed_;  // weights that the checkpoint holds as [in, out]
  std::set<std::string> unit_rows_;   // whose rows are divided by their lengths
};

}  // namespace signround
