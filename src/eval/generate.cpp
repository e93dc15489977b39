#include "eval/generate.h"

#include <algorithm>
#include <cmath>
#include <deque>

#include "base/rng.h"
#include "model/stage.h"
#include "model/tokens.h"
#include "ops/devices.h"

namespace signround {
namespace {

// The whole model on the backend. Each new token runs all positions again: what comes after a position cannot reach it.
class Resident {
 public:
  Resident(Backend& backend, const Model& model, i64 tokens) : backend_(backend), model_(model), tokens_(tokens) {
    Arena measure;
    place(measure);
    check(measure.used() <= backend.free_bytes(), ErrorKind::out_of_memory, "the model needs ", measure.used() >> 20, " MiB on ",
          backend.name(), ", and ", backend.free_bytes() >> 20, " MiB are free");
    stages_.clear();
    arena_ = Arena(backend, measure.used(), "the model");
    place(arena_);
    for (const Stage& stage : stages_) stage.load(false);
  }

  // Logits of the token after ids[0..count).
  std::vector<float> next(const std::vector<i32>& ids, i64 count) {
    backend_.upload(stages_.front().executor().input(), ids.data());
    stages_.front().executor().forward();
    for (size_t i = 1; i + 1 < stages_.size(); ++i) {
      backend_.copy(stages_[i].executor().input(), stages_[i - 1].executor().output());
      stages_[i].executor().forward();
    }
    const Executor& head = stages_.back().executor();
    backend_.copy(head.input(), stages_[stages_.size() - 2].executor().output().slice(count - 1, 1));
    head.forward();
    std::vector<float> logits(static_cast<size_t>(model_.config().vocab));
    backend_.copy(logits_, head.output());
    backend_.download(logits.data(), logits_);
    return logits;
  }

 private:
  void place(Arena& arena) {
    PlanOptions plan;
    plan.tokens = tokens_;
    stages_.emplace_back(arena, backend_, model_, model_.family().embedding(model_.config()), plan);
    for (i64 i = 0; i < model_.config().layers; ++i)
      stages_.emplace_back(arena, backend_, model_, model_.family().block(model_.config(), i), plan);
    plan.tokens = 1;
    stages_.emplace_back(arena, backend_, model_, model_.family().head(model_.config()), plan);
    logits_ = arena.take(DType::f32, {1, model_.config().vocab});
  }

  Backend& backend_;
  const Model& model_;
  i64 tokens_;
  Arena arena_;
  std::deque<Stage> stages_;
  Tensor logits_;
};

// Draws from softmax(logits / temperature), cut to the smallest set of tokens that holds top_p of the probability.
i32 draw(std::vector<float>& logits, double temperature, double top_p, PythonRandom& random) {
  const size_t best = static_cast<size_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
  if (temperature <= 0) return static_cast<i32>(best);
  std::vector<std::pair<double, i32>> weights;
  double sum = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    weights.emplace_back(std::exp(static_cast<double>(logits[i] - logits[best]) / temperature), static_cast<i32>(i));
    sum += weights.back().first;
  }
  std::sort(weights.begin(), weights.end(),
            [](const auto& a, const auto& b) { return a.first != b.first ? a.first > b.first : a.second < b.second; });
  double kept = 0;
  size_t count = 0;
  while (count < weights.size() && kept < top_p * sum) kept += weights[count++].first;
  double at = random.uniform() * kept;
  for (size_t i = 0; i < count; ++i) {
    at -= weights[i].first;
    if (at <= 0) return weights[i].second;
  }
  return weights[count - 1].second;
}

// Length of the longest prefix of s that ends with a whole UTF-8 character.
size_t whole_characters(std::string_view s) {
  size_t back = 0;
  while (back < s.size() && back < 3 && (static_cast<u8>(s[s.size() - 1 - back]) & 0xC0) == 0x80) ++back;
  if (back == s.size()) return s.size();
  const u8 lead = static_cast<u8>(s[s.size() - 1 - back]);
  const size_t length = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : lead >= 0xC0 ? 2 : 1;
  return back + 1 < length ? s.size() - 1 - back : s.size();
}

}  // namespace

i64 generate(const GenerateOptions& options, const std::function<void(std::string_view text)>& emit) {
  const Model model(options.model);
  const Tokenizer tokenizer = read_tokenizer(options.model);
  std::vector<i32> ids = tokenizer.encode(options.prompt, true);
  check(!ids.empty(), ErrorKind::usage, "the prompt is empty: give --prompt some text");
  check_ids(ids, model.config().vocab);
  const i64 prompt = static_cast<i64>(ids.size()), most = prompt + options.tokens;
  check(most <= model.config().max_positions, ErrorKind::usage, "prompt and answer have ", most,
        " tokens, the model's context is ", model.config().max_positions, ": lower -n");

  const std::unique_ptr<Backend> backend = make_backend(options.device, options.precision);
  Resident resident(*backend, model, most);
  PythonRandom random(options.seed);
  ids.resize(static_cast<size_t>(most), 0);
  size_t emitted = 0;
  std::string text;
  i64 made = 0;
  while (made < options.tokens) {
    const i64 count = prompt + made;
    std::vector<float> logits = resident.next(ids, count);
    const i32 id = draw(logits, options.temperature, options.top_p, random);
    if (id == tokenizer.special().eos) break;
    ids[static_cast<size_t>(count)] = id;
    ++made;
    text = tokenizer.decode(std::span<const i32>(ids).subspan(static_cast<size_t>(prompt), static_cast<size_t>(made)), true);
    const size_t whole = whole_characters(text);
    if (whole > emitted) emit(std::string_view(text).substr(emitted, whole - emitted));
    emitted = std::max(emitted, whole);
  }
  if (text.size() > emitted) emit(std::string_view(text).substr(emitted));
  return made;
}

}  // namespace signround
