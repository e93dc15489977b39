// Whole models: logits against transformers, blocks tuned beside auto-round, and what a damaged model gets for an answer.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <filesystem>

#include "loaded.h"
#include "ops/cpu/select.h"
#include "quant/signround.h"
#include "scratch.h"
#include "testing.h"

using namespace signround;

namespace {

const char* kPeer = "tests/data/peer/";

}  // namespace

TEST_CASE("model: logits equal those of transformers") {
  const SafetensorsFile expected(std::string(kPeer) + "tiny_llama_logits.safetensors");
  const std::pair<const char*, const char*> models[] = {
      {"base", "tiny_llama"}, {"rope", "tiny_llama_rope"}, {"bias", "tiny_llama_bias"}};
  const std::unique_ptr<Backend> backend = make_cpu_backend(Precision::f32);
  for (const auto& model_of_peer : models) {
    const char* name = model_of_peer.first;
    CAPTURE(name);
    const Model model(std::string(kPeer) + model_of_peer.second);
    std::vector<i32> ids;
    for (i64 id : read_values<i64>(expected, cat(name, ".ids"))) ids.push_back(static_cast<i32>(id));
    const i64 tokens = static_cast<i64>(ids.size());
    const std::vector<float> states = hidden_states(*backend, model, ids, tokens, model.config().layers);
    PlanOptions plan;
    plan.tokens = tokens;
    Loaded head(*backend, model, model.family().head(model.config()), plan);
    const std::vector<float> logits = head.run(*backend, states);
    CHECK(distance(logits, read_values<float>(expected, cat(name, ".logits"))) < 1e-5);

    std::vector<float> nll(ids.size());
    std::vector<i32> next(ids.begin() + 1, ids.end());
    next.push_back(-1);
    backend->cross_entropy(tensor(nll), head.stage.executor().output(), tensor(next));
    double sum = 0;
    for (float x : nll) sum += static_cast<double>(x);
    CHECK(sum / static_cast<double>(tokens - 1) ==
          doctest::Approx(read_values<float>(expected, cat(name, ".nll"))[0]).epsilon(1e-5));
  }
}

namespace {

// A copy of the model in float32: the peer was watched in float32, where it does not round wq to 16 bits.
void write_upcast(const std::string& folder, const Path& to) {
  const Checkpoint source(folder);
  std::vector<TensorInfo> tensors;
  for (const TensorInfo* t : source.tensors()) {
    tensors.push_back(*t);
    tensors.back().dtype = DType::f32;
  }
  std::filesystem::copy_file(Path(folder) / "config.json", to / "config.json");
  SafetensorsWriter writer(to / "model.safetensors", tensors);
  for (const TensorInfo* t : source.tensors()) {
    REQUIRE(t->dtype == DType::bf16);
    std::vector<bf16> narrow(t->bytes / sizeof(bf16));
    source.read(t->name, std::as_writable_bytes(std::span(narrow)));
    const std::vector<float> wide(narrow.begin(), narrow.end());
    writer.write(t->name, std::as_bytes(std::span(wide)));
  }
  writer.finish();
}

struct Share {
  i64 hits = 0, all = 0;
  void count(bool hit) {
    hits += hit;
    ++all;
  }
  double equal() const { return static_cast<double>(hits) / static_cast<double>(all); }
};

// Follows auto-round 0.16.1 through the tuning of one block, see tests/peer/make_block.py for what was noted down.
void follow(const std::string& folder, const std::string& file) {
  const SafetensorsFile peer(file);
  const TempDir upcast;
  write_upcast(folder, upcast.path);
  const Model model(upcast.path.string());
  const std::unique_ptr<Backend> backend = make_cpu_backend(Precision::f32);
  const std::vector<i32> meta = read_values<i32>(peer, "meta"), ids = read_values<i32>(peer, "ids");
  const i64 steps = meta[0], batch = meta[1], tokens = meta[2], stride = meta[3], samples = static_cast<i64>(ids.size()) / tokens;
  for (const char* run : {"w4g32sym", "w4g32asym", "w2g32sym", "w2g32asym"})
    for (const TensorInfo& t : peer.tensors()) {
      const std::string begin = cat(run, "."), end = ".loss";
      if (t.name.rfind(begin, 0) != 0 || t.name.size() < end.size() ||
          t.name.compare(t.name.size() - end.size(), end.size(), end) != 0)
        continue;
      const std::string prefix = t.name.substr(0, t.name.size() - end.size() + 1);
      const i64 block = std::stoll(prefix.substr(begin.size()));
      CAPTURE(prefix);

      const Program program = model.family().block(model.config(), block);
      std::vector<QuantSpec> specs;
      for (const WeightRef& w : program.weights)
        specs.push_back(
            {.bits = w.linear ? run[1] - '0' : 16, .group = 32, .symmetric = std::string(run).find("asym") == std::string::npos});
      PlanOptions plan;
      plan.batch = batch;
      plan.tokens = tokens;
      plan.tuning = true;
      const TuneOptions tune{.steps = steps,
                             .batch = batch,
                             .tokens = tokens,
                             .lr = 1.0 / static_cast<double>(steps),
                             .minmax_lr = 1.0 / static_cast<double>(steps)};
      Loaded loaded(*backend, model, program, plan, specs);
      Arena measure;
      BlockQuant::place(measure, measure, program, loaded.stage.weights(), specs, true);
      place_state(measure, tune);
      Arena arena(*backend, measure.used(), "test");
      const BlockQuant quant = BlockQuant::place(arena, arena, program, loaded.stage.weights(), specs, true);
      const TuningState state = place_state(arena, tune);
      std::vector<float> x = hidden_states(*backend, model, ids, tokens, block);
      std::vector<float> y = hidden_states(*backend, model, ids, tokens, block + 1);
      const i64 rows = samples * tokens;

      PythonRandom random(42);  // runs on from block to block
      for (i64 earlier = 0; earlier < block; ++earlier) {
        std::vector<i32> drawn;
        Sampler past(random, samples);
        for (i64 step = 0; step < steps; ++step) past.next(batch, drawn);
      }
      Sampler sampler(random, samples);
      const auto after_step = [&](i64 n) {
        if (n != 1) return;
        const std::vector<i32> order = read_values<i32>(peer, prefix + "order");
        CHECK(std::memcmp(state.order.data, order.data(), order.size() * sizeof(i32)) == 0);
        Share signs, factors;
        quant.each([&](size_t w) {
          const std::string layer = prefix + program.weights[w].name.substr(0, program.weights[w].name.rfind('.')) + ".";
          const std::vector<std::int8_t> wanted = read_values<std::int8_t>(peer, layer + "v");
          const i64 cols = program.weights[w].cols;
          const float* v = quant.tensors[w].v.as<float>();
          size_t at = 0;
          for (i64 r = 0; r < program.weights[w].rows; r += stride)
            for (i64 c = 0; c < cols; ++c) signs.count(wanted.at(at++) == (v[r * cols + c] > 0) - (v[r * cols + c] < 0));
          CHECK(at == wanted.size());
          for (const auto& [ours, name] : {std::pair{quant.tensors[w].lo, "lo"}, std::pair{quant.tensors[w].hi, "hi"}}) {
            const std::vector<float> factor = read_values<float>(peer, layer + name);
            size_t next = 0;
            for (i64 r = 0; r < ours.rows(); r += stride)
              for (i64 g = 0; g < ours.cols(); ++g)
                factors.count(std::abs(ours.as<float>()[r * ours.cols() + g] - factor.at(next++)) < 1e-6f);
            CHECK(next == factor.size());
          }
        });
        CHECK(signs.equal() > 0.995);
        CHECK(factors.equal() > 0.99);
      };
      const TuneResult result =
          tune_block(*backend, loaded.stage.executor(), quant, state, view(x.data(), DType::f32, rows, x.size() / rows),
                     view(y.data(), DType::f32, rows, y.size() / rows), {}, sampler, tune, after_step);
      // The peer divides by all positions, though the last ones do not count.
      const std::vector<float> wanted = read_values<float>(peer, prefix + "loss");
      const double share = static_cast<double>(tokens - 1) / static_cast<double>(tokens);
      CHECK(result.losses[0] * share == doctest::Approx(wanted[0]).epsilon(1e-3));
      for (size_t i = 1; i < 3; ++i) CHECK(result.losses[i] * share == doctest::Approx(wanted[i]).epsilon(1e-2));
      for (size_t i = 3; i < result.losses.size(); ++i)
        CHECK(result.losses[i] * share == doctest::Approx(wanted[i]).epsilon(0.1));
    }
}

}  // namespace

TEST_CASE("signround: a block of the tiny model beside auto-round") {
  follow(std::string(kPeer) + "tiny_llama", std::string(kPeer) + "tiny_block.safetensors");
}

TEST_CASE("signround: blocks of the embedded model beside auto-round") {
  follow("data/model", std::string(kPeer) + "model_block.safetensors");
}
