// A Hugging Face directory: config.json, model.safetensors or its shards and their index, quantization_config.json.
#pragma once
#include "export/model_writer.h"

namespace signround {

std::unique_ptr<ModelWriter> make_safetensors_model(const OutputRequest& request);

}  // namespace signround
