#include "pipeline/quantize.h"

#include <algorithm>
#include <chrono>

#include "model/tokens.h"
#include "ops/devices.h"
#include "pipeline/block_work.h"
#include "pipeline/chain.h"
#include "pipeline/layers.h"

namespace signround {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

class Run {
 public:
  Run(const QuantizeOptions& options, const QuantizeObserver& observer)
      : options_(options), observer_(observer), model_(options.model), layers_(plan_layers(model_, options)),
        backend_(make_backend(options.device, options.precision)), random_(options.seed) {
    check(!model_.packed(), ErrorKind::bad_input, options.model, " is quantized already: give the original model");
    tune_ = {.steps = options.iters, .batch = options.batch_size, .accumulate = options.accumulate, .tokens = options.seqlen};
    tune_.lr = options.lr.value_or(options.iters > 0 ? 1 / static_cast<double>(options.iters) : 0);
    tune_.minmax_lr = options.minmax_lr.value_or(tune_.lr);
  }

  QuantizeReport run() {
    open_writers();  // what cannot be written is refused before anything is read
    const std::vector<std::vector<i32>> samples = tunes() ? read_samples() : std::vector<std::vector<i32>>{};
    const i64 arena_bytes = require_memory();
    Arena arena(*backend_, arena_bytes, "one block's weights, parameters and activations");
    std::optional<Chain> chain;
    if (tunes()) {
      observer_.stage("embedding");
      chain.emplace(*backend_, options_.nsamples, options_.seqlen, model_.config().hidden);
      const Stage embedding = embedding_stage(arena);
      embedding.load(true);
      chain->embed(embedding, samples);
    }
    for (size_t i = 0; i < layers_.blocks.size(); ++i) {
      arena.rewind();
      within(layers_.blocks[i].prefix.substr(0, layers_.blocks[i].prefix.size() - 1), [&] { quantize_block(arena, i, chain); });
    }
    observer_.stage("writing");
    for (const std::unique_ptr<ModelWriter>& writer : writers_) {
      writer->finish(layers_.scheme);
      report_.outputs.push_back(writer->path());
      report_.output_bytes += static_cast<i64>(writer->bytes());
    }
    report_.skipped = layers_.skipped;
    report_.quantized_weights = layers_.quantized_weights();
    for (const TensorInfo* tensor : model_.checkpoint().tensors()) report_.input_bytes += static_cast<i64>(tensor->bytes);
    report_.device = backend_->name();
    report_.seconds = seconds_since(start_);
    return std::move(report_);
  }

 private:
  bool tunes() const { return tune_.steps > 0; }
  std::vector<std::vector<i32>> read_samples();
  i64 require_memory() const;
  void open_writers();
  void quantize_block(Arena& arena, size_t index, std::optional<Chain>& chain);

  Stage embedding_stage(Arena& arena) const {
    PlanOptions plan;
    plan.batch = tune_.batch;
    plan.tokens = tune_.tokens;
    return Stage(arena, *backend_, model_, model_.family().embedding(model_.config()), plan);
  }

  const QuantizeOptions& options_;
  const QuantizeObserver& observer_;
  const Clock::time_point start_ = Clock::now();
  Model model_;
  LayerPlan layers_;
  std::unique_ptr<Backend> backend_;
  PythonRandom random_;
  TuneOptions tune_;
  std::vector<std::unique_ptr<ModelWriter>> writers_;
  QuantizeReport report_;
};

std::vector<std::vector<i32>> Run::read_samples() {
  observer_.stage("reading the calibration text");
  return read_calibration(options_.model, model_.config(), options_.dataset, options_.ids,
                          {.count = options_.nsamples, .length = options_.seqlen, .seed = options_.seed});
}

// One format: the output itself; several: a folder each.
void Run::open_writers() {
  for (const std::string& format : options_.formats) {
    Path path(options_.output);
    if (options_.formats.size() > 1) {
      std::string folder = format;
      std::replace(folder.begin(), folder.end(), ':', '-');
      path /= folder;
    }
    writers_.push_back(std::make_unique<ModelWriter>(path, options_.force, model_.checkpoint(), format, layers_.linears));
  }
}

// Everything that the run will hold on the device at one time; refused here, not after an hour. Returns the arena's part of it.
i64 Run::require_memory() const {
  i64 most = 0;
  for (size_t i = 0; i < layers_.blocks.size(); ++i) {
    Arena measure;
    BlockWork(measure, *backend_, model_, layers_.blocks[i], layers_.specs[i], tune_);
    most = std::max(most, measure.used());
  }
  i64 states = 0;
  if (tunes()) {
    Arena measure;
    embedding_stage(measure);
    most = std::max(most, measure.used());
    states = Chain::bytes(*backend_, options_.nsamples, options_.seqlen, model_.config().hidden);
  }
  const i64 free = backend_->free_bytes();
  check(most + states <= free, ErrorKind::out_of_memory, "this needs ", (most + states) >> 20, " MiB on ", backend_->name(), " (",
        most >> 20, " for a block, ", states >> 20, " for hidden states) and ", free >> 20,
        " MiB are free: lower --nsamples, --seqlen or --batch-size");
  return most;
}

void Run::quantize_block(Arena& arena, size_t index, std::optional<Chain>& chain) {
  const Clock::time_point started = Clock::now();
  const i64 blocks = static_cast<i64>(layers_.blocks.size()), block = static_cast<i64>(index);
  const BlockWork work(arena, *backend_, model_, layers_.blocks[index], layers_.specs[index], tune_);
  work.load();
  BlockReport report;
  report.name = layers_.blocks[index].prefix.substr(0, layers_.blocks[index].prefix.size() - 1);
  report.index = block;
  report.blocks = blocks;
  const auto issued = [&](i64 step) {
    if (observer_.cancel && *observer_.cancel) fail(ErrorKind::interrupted, "stopped on request; nothing was written");
    observer_.step(block, blocks, step, tune_.steps);
  };
  if (chain) {
    chain->run_original(work.executor());
    Sampler sampler(random_, options_.nsamples);
    if (index == 0) report_.seconds_to_first_step = seconds_since(start_);
    const Clock::time_point tuning = Clock::now();
    const TuneResult result = work.tune(chain->quantized_input(), chain->target(), sampler, issued);
    report.tflops = work.flops_per_step() * static_cast<double>(tune_.steps) / seconds_since(tuning) / 1e12;
    report.first_loss = result.losses.front();
    report.best_loss = result.best_loss;
    report.best_step = result.best_step;
    work.quantize();
    if (block + 1 < blocks) chain->advance(work.executor());
  } else {
    issued(0);
    work.round_to_nearest();
  }
  work.each_layer([&](const QuantizedLinear& layer) {
    for (const std::unique_ptr<ModelWriter>& writer : writers_) writer->write(layer);
  });
  report.seconds = seconds_since(started);
  report.peak_bytes = backend_->peak_bytes();
  observer_.block(report);
  report_.blocks.push_back(report);
}

}  // namespace

QuantizeReport quantize(const QuantizeOptions& options, const QuantizeObserver& observer) { return Run(options, observer).run(); }

}  // namespace signround
