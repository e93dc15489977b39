// What is written by a thread while a block is tuned: at first what no tuning changes, then the layers of the block before.
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

  // Each begins when what the call before began is written, and throws what that met.
  void copy_untouched() {
    begin([this] {
      for (const std::unique_ptr<ModelWriter>& writer : writers_) writer->copy_untouched();
    });
  }
  // Packs, digests and writes. The integers of two blocks are held in host memory at the most.
  void write(std::vector<QuantizedLinear> layers) {
    begin([this, layers = std::move(layers)] {
      for (const QuantizedLinear& layer : layers)
        for (const std::unique_ptr<ModelWriter>& writer : writers_) writer->write(layer);
    });
  }
  // All is written; throws what the last call met.
  void finish() {
    if (writing_.valid()) writing_.get();
  }

 private:
  template <class Work>
  void begin(Work work) {
    finish();
    writing_ = std::async(std::launch::async, std::move(work));
  }

  const std::vector<std::unique_ptr<ModelWriter>>& writers_;
  std::future<void> writing_;
};

}  // namespace signround
