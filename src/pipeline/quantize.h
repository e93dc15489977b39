// The whole of `signround quantize`: read, tune block by block, write. Every option of the command line, and what the run
// reports.
#pragma once
#include <atomic>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "export/model_writer.h"
#include "pipeline/memory_plan.h"

namespace signround {

struct QuantizeOptions {
  std::string model;                                  // Hugging Face directory
  std::string output;                                 // directory to make
  QuantSpec spec;                                     // W4G128 sym
  std::vector<std::string> formats = {"auto_round"};  // several: a folder each under output
  i64 iters = 200;                                    // 0: round to nearest
  std::optional<double> lr, minmax_lr;                // default 1/iters; minmax_lr default lr
  int search_bits = 2;                                // TuneOptions'
  i64 nsamples = 128, seqlen = 2048, batch_size = 8, accumulate = 1;
  std::string dataset = "builtin";  // a path, or the text inside the program's data folder
  std::string ids;                  // path of an ids file instead of a text
  i64 seed = 42;
  std::vector<std::string> ignore_layers;  // exact names or parts of names
  std::string ppl;                         // path of a text to score before and after, windows of seqlen; empty: none
  std::string layer_config;                // path of the file that quant/layer_rules.h describes; empty: none
  std::string device = "auto";
  std::optional<Precision> precision = {};  // default: bf16 on a GPU, f32 on a CPU
  Memory memory = Memory::balanced;
  bool graph = true;  // a GPU replays a recorded step
  bool force = false;
  u64 shard_bytes = kShardBytes;  // of a file of tensors
  std::string command;            // for the outputs' papers
};

struct BlockReport {
  std::string name;  // "model.layers.3"
  i64 index = 0, blocks = 0;
  double first_loss = 0, best_loss = 0;  // mean squared error of the first and of the best step
  i64 best_step = 0;
  double seconds = 0;
  double tflops = 0;   // arithmetic of the tuning steps over their time, 1e12 per second
  i64 peak_bytes = 0;  // on the device
  std::vector<std::string> idle_experts;  // met no token of the calibration: rounded to nearest
};

struct QuantizeReport {
  std::vector<BlockReport> blocks;
  std::vector<std::string> skipped;  // linear layers left as they were, each with the reason
  std::map<std::string, i64> grids;  // layers that have each: "W4G128 sym"
  std::vector<std::string> fallbacks;  // "180 layers with 576 inputs as Q5_0, ...": where the grid of most does not fit
  std::vector<std::string> outputs;  // directories written
  std::vector<std::vector<Verdict>> loaders;  // of each output: who can load it
  std::optional<Perplexities> perplexity;
  i64 quantized_weights = 0, input_bytes = 0, output_bytes = 0;
  double seconds = 0, seconds_to_first_step = 0;
  std::string device;
};

// Called on the caller's thread. step() may be called often; total_steps counts all blocks.
struct QuantizeObserver {
  std::function<void(const std::string& stage)> stage = [](const std::string&) {};
  std::function<void(i64 block, i64 blocks, i64 step, i64 steps)> step = [](i64, i64, i64, i64) {};
  std::function<void(const BlockReport&)> block = [](const BlockReport&) {};
  const std::atomic<bool>* cancel = nullptr;  // set: stops within a step, throws Error{interrupted}, leaves nothing behind
};

// What a run will take, known before it starts.
struct RunPlan {
  MemoryPlan memory;
  std::string device;
  i64 backend_bytes = 0;  // of the device: the backend's own, beside memory.device_bytes()
  i64 free_bytes = 0;     // of the device, before the run takes anything but backend_bytes
  i64 input_bytes = 0;    // of the checkpoint; what is written is smaller
  i64 blocks = 0;
  double flops = 0;  // arithmetic of all blocks
  std::vector<std::string> fallbacks;  // as QuantizeReport has them
};
RunPlan plan_run(const QuantizeOptions& options);

QuantizeReport quantize(const QuantizeOptions& options, const QuantizeObserver& observer);

}  // namespace signround
