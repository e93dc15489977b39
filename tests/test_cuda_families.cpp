// Every family's tiny checkpoint on the GPU, beside the numbers that the CPU is held to: tests/test_families.cpp.
#include <doctest/doctest.h>

#include "cuda_lab.h"
#include "families.h"

using namespace signround;

TEST_CASE("cuda: families: logits, blocks and gradients equal those of transformers and autograd") {
  if (absent()) return;
  for (Precision precision : kPrecisions) {
    const std::unique_ptr<Backend> gpu = make_backend("cuda", precision);
    for (const std::string& name : family_names()) {
      CAPTURE(name);
      CAPTURE(name_of(gpu->activation_type()));
      const Model model((kFamilies / name).string());
      const SafetensorsFile peer = peer_of(name);
      // Activations rounded to bf16 make some tokens choose another expert.
      const bool routed = model.config().experts.count > 0;
      const Tolerance most = precision == Precision::f32 ? Tolerance{.logits = 1e-4, .out = 1e-4, .gradient = 1e-4}
                             : routed                    ? Tolerance{.logits = 0.7, .out = 0.3, .gradient = 0.7}
                                                         : Tolerance{.logits = 0.1, .out = 0.03, .gradient = 0.08};
      check_logits(*gpu, model, peer, most.logits);
      for (i64 layer = 0; layer < model.config().layers; ++layer) {
        CAPTURE(layer);
        check_block(*gpu, model, peer, layer, most);
      }
    }
  }
}

TEST_CASE("cuda: families: tuning at 4 bits lowers the loss of every block") {
  if (absent()) return;
  for (const std::string& name : family_names()) {
    CAPTURE(name);
    const TempDir dir;
    for (const BlockReport& block : tune_family(name, dir, "cuda").blocks) {
      CAPTURE(block.name);
      CHECK(block.best_loss < block.first_loss);
    }
  }
}
