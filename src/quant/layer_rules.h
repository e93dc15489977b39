// --layer-config: a JSON file that gives linear layers a grid of their own, or leaves them at 16 bits.
//   {"down_proj": {"bits": 8, "group_size": 32}, "layers\\.[01]\\..*_proj": {"sym": false}, "layers.3.mlp.up_proj": {"bits": 16}}
// A key is a layer's whole name, a part of one as --ignore-layers has it, or, with any of *+?()[]{}|\^$ in it, a regular
// expression that is found in the name. A whole name goes first; of other keys that fit a layer the first in the file counts.
// What a value does not say (bits 2 to 8 or 16; group_size 32, 64, 128 or -1; sym) is as for all other layers.
#pragma once
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "io/file.h"
#include "io/json.h"
#include "ops/types.h"
#include "text/pattern.h"

namespace signround {

class LayerRules {
 public:
  LayerRules() = default;  // says nothing
  // Throws Error{bad_input} that names the file and the key.
  static LayerRules read(const Path& file);
  static LayerRules parse(const Json& json, const std::string& file);

  struct Rule {
    std::string key;
    std::optional<Pattern> pattern;  // none: the key is a name or a part of one
    bool from_start = false;         // the pattern begins with ^
    std::optional<int> bits;
    std::optional<i64> group;
    std::optional<bool> symmetric;

    bool fits(const std::string& name) const;
    QuantSpec applied_to(QuantSpec spec) const;
  };
  const Rule* rule_for(const std::string& name) const;  // null: none fits

  // Throws Error{bad_input} if a key fits none of `names` (all linear layers, lm_head too), with the nearest name; or if the head
  // is to be quantized.
  void check_keys(std::span<const std::string> names) const;

 private:
  std::string file_;
  std::vector<Rule> rules_;
};

}  // namespace signround
