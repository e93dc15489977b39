#include "eval/perplexity.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "model/stage.h"
#include "model/tokens.h"
#include "ops/devices.h"

namespace signround {
namespace {

constexpr i64 kHeadRows = 512;  // logits at a time: rows x vocabulary in memory

// One pass of a group of windows through the model: each block is read once and runs over all of them, so that memory holds one
// block and the hidden states, whatever the model's size.
class Pass {
 public:
  Pass(Backend& backend, const Model& model, i64 seqlen, i64 batch) : backend_(backend), model_(model), seqlen_(seqlen) {
    plan_.batch = batch;
    plan_.tokens = seqlen;
    head_plan_.tokens = std::min(kHeadRows, seqlen);
    Arena measure;
    Stage(measure, backend, model, model.family().embedding(model.config()), plan_);
    arena_bytes_ = measure.used();
    for (i64 i = 0; i < model.config().layers; ++i) {
      measure.rewind();
      Stage(measure, backend, model, model.family().block(model.config(), i), plan_);
      arena_bytes_ = std::max(arena_bytes_, measure.used());
    }
    measure.rewind();
    Stage(measure, backend, model, model.family().head(model.config()), head_plan_);
    measure.take(DType::i32, {head_plan_.tokens});
    measure.take(DType::f32, {head_plan_.tokens});
    arena_bytes_ = std::max(arena_bytes_, measure.used());
  }

  i64 window_bytes() const { return aligned(seqlen_ * model_.config().hidden * bytes_of(backend_.activation_type())); }

  // Windows that fit into memory beside the arena; at least one batch is asked for, or Error{out_of_memory}.
  i64 group(i64 windows) const {
    const i64 room = (backend_.free_bytes() - arena_bytes_) / window_bytes();
    check(room >= plan_.batch, ErrorKind::out_of_memory, "a block and one batch of windows need ",
          (arena_bytes_ + plan_.batch * window_bytes()) >> 20, " MiB on ", backend_.name(), ", and ", backend_.free_bytes() >> 20,
          " MiB are free: lower --seqlen or --batch-size");
    return std::min(windows, room / plan_.batch * plan_.batch);
  }

  // Sum of the negative log-likelihoods of `windows` windows of ids. advance() is called after each block.
  double run(const i32* ids, i64 windows, const std::function<void()>& advance) const {
    Arena arena(backend_, arena_bytes_, "one block's weights and activations");
    const Buffer memory(backend_, windows * window_bytes(), "hidden states of the windows");
    const Tensor states = view(memory.data(), backend_.activation_type(), windows * seqlen_, model_.config().hidden);
    embed(arena, states, ids);
    for (i64 i = 0; i < model_.config().layers; ++i) {
      arena.rewind();
      const Stage block(arena, backend_, model_, model_.family().block(model_.config(), i), plan_);
      block.load(false);
      each_batch(states, plan_.batch * seqlen_, [&](Tensor rows, i64) {
        backend_.copy(block.executor().input(), rows);
        block.executor().forward();
        backend_.copy(rows, block.executor().output());
      });
      advance();
    }
    arena.rewind();
    return score(arena, states, ids);
  }

 private:
  template <class F>
  static void each_batch(Tensor states, i64 rows, F f) {  // rows divide the states' rows
    for (i64 first = 0; first < states.rows(); first += rows) f(states.slice(first, rows), first);
  }

  void embed(Arena& arena, Tensor states, const i32* ids) const {
    const Stage embedding(arena, backend_, model_, model_.family().embedding(model_.config()), plan_);
    embedding.load(false);
    each_batch(states, plan_.batch * seqlen_, [&](Tensor rows, i64 first) {
      backend_.upload(embedding.executor().input(), ids + first);
      embedding.executor().forward();
      backend_.copy(rows, embedding.executor().output());
    });
  }

  double score(Arena& arena, Tensor states, const i32* ids) const {
    const Stage head(arena, backend_, model_, model_.family().head(model_.config()), head_plan_);
    head.load(false);
    const i64 rows = head_plan_.tokens;
    const Tensor target = arena.take(DType::i32, {rows}), nll = arena.take(DType::f32, {rows});
    std::vector<i32> next(static_cast<size_t>(rows));
    std::vector<float> losses(static_cast<size_t>(rows));
    double sum = 0;
    for (i64 first = 0; first < states.rows(); first += rows) {
      const i64 start = std::min(first, states.rows() - rows);  // the last chunk is full too; what was scored before is skipped
      for (i64 i = 0; i < rows; ++i) {
        const i64 at = start + i;
        const bool counts = at >= first && (at + 1) % seqlen_ != 0;  // the last token of a window predicts nothing in it
        next[static_cast<size_t>(i)] = counts ? ids[at + 1] : -1;
      }
      backend_.upload(target, next.data());
      backend_.copy(head.executor().input(), states.slice(start, rows));
      head.executor().forward();
      backend_.cross_entropy(nll, head.executor().output(), target);
      backend_.download(losses.data(), nll);
      for (float loss : losses) sum += static_cast<double>(loss);
    }
    return sum;
  }

  Backend& backend_;
  const Model& model_;
  i64 seqlen_;
  PlanOptions plan_, head_plan_;
  i64 arena_bytes_ = 0;
};

}  // namespace

PerplexityReport perplexity(const PerplexityOptions& options, const std::function<void(i64 done, i64 all)>& progress) {
  const auto start = std::chrono::steady_clock::now();
  const Model model(options.model);
  check_length(model.config(), options.seqlen);
  const std::vector<i32> ids = read_tokens(options.model, model.config(), options.text, options.ids);
  const i64 seqlen = options.seqlen, all = static_cast<i64>(ids.size()) / seqlen;
  check(all > 0, ErrorKind::bad_input, "the text has ", ids.size(), " tokens, fewer than one window of ", seqlen,
        ": lower --seqlen");
  const i64 windows = options.windows > 0 ? std::min(options.windows, all) : all;

  const std::unique_ptr<Backend> backend = make_backend(options.device, options.precision);
  // A batch divides the windows of every group: memory first, then the largest batch that fits evenly.
  i64 batch = std::min(options.batch_size, windows);
  while (windows % batch != 0) --batch;
  const Pass pass(*backend, model, seqlen, batch);
  const i64 group = pass.group(windows), groups = (windows + group - 1) / group;

  PerplexityReport report;
  i64 done = 0;
  double sum = 0;
  for (i64 first = 0; first < windows; first += group)
    sum += pass.run(ids.data() + first * seqlen, std::min(group, windows - first),
                    [&] { progress(++done, groups * model.config().layers); });
  report.windows = windows;
  report.tokens = windows * (seqlen - 1);
  report.nll = sum / static_cast<double>(report.tokens);
  report.perplexity = std::exp(report.nll);
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report;
}

}  // namespace signround
