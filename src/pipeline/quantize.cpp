#include "pipeline/quantize.h"

#include <algorithm>
#include <chrono>
#include <future>

#include "eval/perplexity.h"
#include "export/gguf.h"
#include "io/sha256.h"
#include "model/tokens.h"
#include "ops/devices.h"
#include "pipeline/block_work.h"
#include "pipeline/chain.h"
#include "pipeline/layers.h"
#include "pipeline/read_ahead.h"
#include "pipeline/write_behind.h"
#include "quant/scheme.h"

namespace signround {
namespace {

using Clock = std::chrono::steady_clock;
using Samples = std::vector<std::vector<i32>>;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

std::string digest_of(const Samples& samples) {
  std::vector<i32> ids;
  for (const std::vector<i32>& sample : samples) ids.insert(ids.end(), sample.begin(), sample.end());
  return signround::digest_of(std::as_bytes(std::span(ids)));
}

class Run {
 public:
  // reads: the calibration text and the table of embeddings are read from the start, while the device wakes up.
  Run(const QuantizeOptions& options, const QuantizeObserver& observer, bool reads)
      : options_(options),
        observer_(observer),
        model_(options.model),
        layers_(plan_layers(model_, options)),
        samples_(reads && options.iters > 0 ? std::async(std::launch::async, [this] { return read_samples(); })
                                            : std::future<Samples>{}),
        weights_(model_, reads && options.iters > 0 ? std::optional(model_.family().embedding(model_.config())) : std::nullopt),
        backend_(make_backend(options.device, options.precision, options.graph)),
        random_(options.seed) {
    tune_ = {.steps = options.iters, .batch = options.batch_size, .accumulate = options.accumulate, .tokens = options.seqlen};
    tune_.lr = options.lr.value_or(options.iters > 0 ? 1 / static_cast<double>(options.iters) : 0);
    tune_.minmax_lr = options.minmax_lr.value_or(tune_.lr);
    tune_.search_bits = options.search_bits;
    tune_.targets_ahead = targets_ahead(options.memory, cache_bytes());
    if (tunes()) check_length(model_.config(), options.seqlen);
    check(!tunes() || options.batch_size <= options.nsamples, ErrorKind::usage, "--batch-size ", options.batch_size,
          " is more than the ", options.nsamples, " samples: lower it, or raise --nsamples");
  }

  RunPlan plan() const;
  QuantizeReport run() {
    open_writers();  // what cannot be written is refused first
    std::optional<Perplexities> measured;
    if (!options_.ppl.empty()) measured = measure_original();
    if (tunes()) observer_.stage("reading the calibration text");
    const Samples samples = tunes() ? samples_.get() : Samples{};
    quantize_blocks(samples);
    observer_.stage("writing");
    writing_.finish();
    for (const std::unique_ptr<ModelWriter>& writer : writers_) writer->finish();
    if (measured) measured->after = measure(scored_writer()->partial()).perplexity;
    const Provenance provenance{options_.command, tunes() ? digest_of(samples) : "", options_.seed, measured};
    for (const std::unique_ptr<ModelWriter>& writer : writers_) {
      writer->conclude(provenance);
      report_.outputs.push_back(writer->path());
      report_.loaders.push_back(writer->loaders());
      report_.output_bytes += static_cast<i64>(writer->bytes());
    }
    report_.perplexity = measured;
    report_.skipped = layers_.skipped;
    for (const PlannedLayer& layer : layers_.linears)
      if (layer.spec.quantized()) ++report_.grids[text_of(layer.spec)];
    report_.fallbacks = layers_.fallbacks;
    report_.quantized_weights = layers_.quantized_weights();
    for (const TensorInfo* tensor : model_.checkpoint().tensors()) report_.input_bytes += static_cast<i64>(tensor->bytes);
    report_.device = backend_->name();
    report_.seconds = seconds_since(start_);
    return std::move(report_);
  }

 private:
  bool tunes() const { return tune_.steps > 0; }
  i64 cache_bytes() const {
    return Chain::cache_bytes(*backend_, options_.nsamples, options_.seqlen, model_.config().hidden);
  }
  Samples read_samples() const {
    return read_calibration(options_.model, model_.config(), options_.dataset, options_.ids,
                            {.count = options_.nsamples, .length = options_.seqlen, .seed = options_.seed});
  }
  void require_memory(const MemoryPlan& memory) const;
  void open_writers();
  void quantize_blocks(const Samples& samples);
  const ModelWriter* scored_writer() const;
  PerplexityReport measure(const Path& model) const;
  Perplexities measure_original() const;
  void stop_if_asked() const;
  std::vector<QuantizedLinear> quantize_block(Arena& arena, Arena& snapshots, size_t index, std::optional<Chain>& chain);

  Stage embedding_stage(Arena& arena) const {
    PlanOptions plan;
    plan.batch = tune_.batch;
    plan.tokens = tune_.tokens;
    return Stage(arena, *backend_, weights_, model_.family().embedding(model_.config()), plan);
  }

  const QuantizeOptions& options_;
  const QuantizeObserver& observer_;
  const Clock::time_point start_ = Clock::now();
  Model model_;
  LayerPlan layers_;
  std::future<Samples> samples_;
  ReadAhead weights_;
  std::unique_ptr<Backend> backend_;
  PythonRandom random_;
  TuneOptions tune_;
  std::vector<std::unique_ptr<ModelWriter>> writers_;
  WriteBehind writing_{writers_};
  QuantizeReport report_;
};

// One format: the output itself; several: a folder each.
void Run::open_writers() {
  for (const std::string& format : options_.formats) require_format(format, layers_.linears, layers_.scheme);
  for (const std::string& format : options_.formats) {
    Path path(options_.output);
    if (options_.formats.size() > 1) {
      std::string folder = format;
      std::replace(folder.begin(), folder.end(), ':', '-');
      path /= folder;
    }
    writers_.push_back(make_model_writer({.out = path,
                                          .force = options_.force,
                                          .format = format,
                                          .source = model_.checkpoint(),
                                          .config = model_.checkpoint().config(),
                                          .layers = layers_.linears,
                                          .scheme = layers_.scheme,
                                          .shard_bytes = options_.shard_bytes}));
  }
}

// All formats hold the same weights; the first that this program reads speaks for them. Null if there is none.
const ModelWriter* Run::scored_writer() const {
  for (size_t i = 0; i < writers_.size(); ++i)
    if (!is_gguf(options_.formats[i])) return writers_[i].get();
  return nullptr;
}

PerplexityReport Run::measure(const Path& model) const {
  observer_.stage(cat("perplexity of ", model.string()));
  PerplexityOptions scoring;
  scoring.model = model.string();
  scoring.text = options_.ppl;
  scoring.seqlen = options_.seqlen;
  scoring.device = options_.device;
  scoring.precision = options_.precision;
  return perplexity(scoring, [&](i64, i64) { stop_if_asked(); });
}

Perplexities Run::measure_original() const {
  check(scored_writer() != nullptr, ErrorKind::usage,
        "--ppl: the perplexity of a GGUF file is not measured here; the nearest is to add ,fake to --format");
  const PerplexityReport report = measure(options_.model);
  return {Path(options_.ppl).filename().string(), report.tokens, report.perplexity, 0};
}

void Run::stop_if_asked() const {
  if (observer_.cancel && *observer_.cancel) fail(ErrorKind::interrupted, "stopped on request; nothing was written");
}

// Its memory is free again when it returns.
void Run::quantize_blocks(const Samples& samples) {
  const MemoryPlan memory = plan().memory;
  require_memory(memory);
  const auto at = [&](bool on_host) -> Allocator& { return on_host ? backend_->host_memory() : *backend_; };
  Arena arena(*backend_, memory.arena, "one block's weights, parameters and activations");
  Arena snapshots(at(memory.snapshots_on_host), memory.snapshots, "the best parameters so far");
  std::optional<Chain> chain;
  if (tunes()) {
    observer_.stage("embedding");
    chain.emplace(*backend_, at(memory.inputs_on_host), at(memory.targets_on_host), options_.nsamples, options_.seqlen,
                  model_.config().hidden);
    const Stage embedding = embedding_stage(arena);
    embedding.load(true);
    chain->embed(embedding, samples);
  }
  writing_.copy_untouched();
  for (size_t i = 0; i < layers_.blocks.size(); ++i) {
    arena.rewind();
    snapshots.rewind();
    const std::string& prefix = layers_.blocks[i].prefix;
    std::vector<QuantizedLinear> integers;
    within(prefix.substr(0, prefix.size() - 1), [&] { integers = quantize_block(arena, snapshots, i, chain); });
    writing_.write(std::move(integers));
  }
}

RunPlan Run::plan() const {
  RunPlan plan;
  MemoryPlan sizes;
  for (size_t i = 0; i < layers_.blocks.size(); ++i) {
    Arena measure, snapshots;
    const BlockWork work(measure, snapshots, *backend_, model_, layers_.blocks[i], layers_.specs[i], tune_);
    sizes.arena = std::max(sizes.arena, measure.used());
    sizes.snapshots = std::max(sizes.snapshots, snapshots.used());
    plan.flops += work.flops_per_step() * static_cast<double>(tune_.steps);
  }
  if (tunes()) {
    Arena measure;
    embedding_stage(measure);
    sizes.arena = std::max(sizes.arena, measure.used());
    sizes.cache = cache_bytes();
  }
  plan.device = backend_->name();
  plan.backend_bytes = backend_->peak_bytes();
  plan.free_bytes = backend_->free_bytes();
  plan.memory = arrange(sizes, options_.memory, plan.free_bytes);
  plan.blocks = static_cast<i64>(layers_.blocks.size());
  plan.fallbacks = layers_.fallbacks;
  for (const TensorInfo* tensor : model_.checkpoint().tensors()) plan.input_bytes += static_cast<i64>(tensor->bytes);
  return plan;
}

// Refused here, not after an hour.
void Run::require_memory(const MemoryPlan& memory) const {
  const i64 free = backend_->free_bytes(), needed = memory.device_bytes();
  check(needed <= free, ErrorKind::out_of_memory, "this needs ", needed >> 20, " MiB on ", backend_->name(), " (",
        memory.arena >> 20, " for a block, ", (needed - memory.arena) >> 20, " for hidden states and best parameters) and ",
        free >> 20, " MiB are free: lower --nsamples, --seqlen or --batch-size",
        options_.memory == Memory::least ? "" : ", or give --memory least");
}

std::vector<QuantizedLinear> Run::quantize_block(Arena& arena, Arena& snapshots, size_t index,
                                                 std::optional<Chain>& chain) {
  const Clock::time_point started = Clock::now();
  const i64 blocks = static_cast<i64>(layers_.blocks.size()), block = static_cast<i64>(index);
  const BlockWork work(arena, snapshots, *backend_, weights_, layers_.blocks[index], layers_.specs[index], tune_);
  work.load();
  if (index + 1 < layers_.blocks.size()) weights_.begin(layers_.blocks[index + 1]);
  BlockReport report;
  report.name = layers_.blocks[index].prefix.substr(0, layers_.blocks[index].prefix.size() - 1);
  report.index = block;
  report.blocks = blocks;
  const auto issued = [&](i64 step) {
    stop_if_asked();
    observer_.step(block, blocks, step, tune_.steps);
  };
  if (chain) {
    work.run_original(*chain);
    Sampler sampler(random_, options_.nsamples);
    if (index == 0) report_.seconds_to_first_step = seconds_since(start_);
    const Clock::time_point tuning = Clock::now();
    const TuneResult result = work.tune(chain->quantized_input(), chain->target(), sampler, issued);
    report.tflops = work.flops_per_step() * static_cast<double>(tune_.steps) / seconds_since(tuning) / 1e12;
    report.first_loss = result.losses.front();
    report.best_loss = result.best_loss;
    report.best_step = result.best_step;
    report.idle_experts = result.idle_experts;
    work.quantize();
    if (block + 1 < blocks) chain->run_quantized(work.executor());
  } else {
    issued(0);
    work.round_to_nearest();
  }
  std::vector<QuantizedLinear> integers;
  work.each_layer([&](QuantizedLinear layer) { integers.push_back(std::move(layer)); });
  report.seconds = seconds_since(started);
  report.peak_bytes = backend_->peak_bytes();
  observer_.block(report);
  report_.blocks.push_back(report);
  return integers;
}

}  // namespace

RunPlan plan_run(const QuantizeOptions& options) {
  const QuantizeObserver nobody;
  return Run(options, nobody, false).plan();
}

QuantizeReport quantize(const QuantizeOptions& options, const QuantizeObserver& observer) {
  return Run(options, observer, true).run();
}

}  // namespace signround
