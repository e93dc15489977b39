// A block's layers, packed, digested and written by a thread while the next block is tuned.
#pragma once
#include <future>
#include <memory>
#include <vector>

#include "export/model_writer.h"

namespace signround {

class WriteBehind {
 public:
  // The writers must outlive this.
  explicit WriteBehind(const std::vector<std::unique_ptr<ModelWriter>>& writers) : writers_(writers) {}

  // Begins to write the layers when those of the call before are written; throws what that met. The integers of two blocks are
  // held in host memory at the most.
  void begin(std::vector<QuantizedLinear> layers) {
    finish();
    writing_ = std::async(std::launch::async, [this, layers = std::move(layers)] {
      for (const QuantizedLinear& layer : layers)
        for (const std::unique_ptr<ModelWriter>& writer : writers_) writer->write(layer);
    });
  }
  // All is written; throws what the last call met.
  void finish() {
    if (writing_.valid()) writing_.get();
  }

 private:
  const std::vector<std::unique_ptr<ModelWriter>>& writers_;
  std::future<void> writing_;
};

}  // namespace signround
