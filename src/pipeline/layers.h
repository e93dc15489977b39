// Which linear layers of a model are quantized and how: decided once, before anything is read or tuned.
#pragma once
#include <string>
#include <vector>

#include "export/model_writer.h"
#include "model/model.h"
#include "pipeline/quantize.h"

namespace signround {

struct LayerPlan {
  std::vector<Program> blocks;                 // one a layer of the network
  std::vector<std::vector<QuantSpec>> specs;   // [block][weight of its program]
  std::vector<PlannedLayer> linears;           // of all blocks, in order
  std::vector<std::string> skipped;            // "name: reason"
  std::vector<std::string> fallbacks;          // "180 layers with 576 inputs as Q5_0, ..."
  ExportScheme scheme;

  i64 quantized_weights() const;
};

// Throws Error{usage} if ignore_layers names nothing, or if nothing is left to quantize; Error{bad_input} for a file of
// options.layer_config that is not right, or if the model is quantized already.
LayerPlan plan_layers(const Model& model, const QuantizeOptions& options);

}  // namespace signround
