#include "pipeline/bench.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <functional>

#include "base/rng.h"
#include "ops/devices.h"
#include "pipeline/block_work.h"
#include "pipeline/chain.h"

namespace signround {

const std::vector<BenchShape> kBenchShapes = {{"llama3-8b", 4096, 14336, 32, 8, 128},   {"qwen2.5-7b", 3584, 18944, 28, 4, 128},
                                              {"llama3.2-1b", 2048, 8192, 32, 8, 64},   {"qwen2.5-0.5b", 896, 4864, 14, 2, 64},
                                              {"smollm2-135m", 576, 1536, 9, 3, 64},
                                              {"qwen3-30b-a3b", 2048, 768, 32, 4, 128, 128, 8}};

namespace {

constexpr i64 kVocab = 1024;

Config config_of(const std::string& name) {
  const auto s = std::find_if(kBenchShapes.begin(), kBenchShapes.end(), [&](const BenchShape& b) { return b.name == name; });
  std::string known;
  for (const BenchShape& b : kBenchShapes) known += cat(known.empty() ? "" : ", ", b.name);
  check(s != kBenchShapes.end(), ErrorKind::usage, "--shape ", name, " is none of ", known);
  return read_config(Json::object({{"architectures", Json::array({s->experts > 0 ? "Qwen3MoeForCausalLM" : "LlamaForCausalLM"})},
                                   {"hidden_size", s->hidden},
                                   {"intermediate_size", s->ffn},
                                   {"moe_intermediate_size", s->ffn},
                                   {"num_experts", s->experts},
                                   {"num_experts_per_tok", s->active},
                                   {"norm_topk_prob", true},
                                   {"num_hidden_layers", 1},
                                   {"num_attention_heads", s->heads},
                                   {"num_key_value_heads", s->kv_heads},
                                   {"head_dim", s->head_dim},
                                   {"vocab_size", kVocab},
                                   {"max_position_embeddings", 8192},
                                   {"rms_norm_eps", 1e-5},
                                   {"hidden_act", "silu"},
                                   {"rope_theta", 500000.0},
                                   {"tie_word_embeddings", true},
                                   {"torch_dtype", "bfloat16"}}));
}

// Uniform in [-1, 1), again and again the same stretch: its length is odd, so that no two rows of a matrix are alike.
constexpr i64 kStretch = (1 << 20) + 1;

std::vector<float> noise(i64 n) {
  static const std::vector<float> stretch = [] {
    PythonRandom random(1);
    std::vector<float> x(kStretch);
    for (float& v : x) v = static_cast<float>(2 * random.uniform() - 1);
    return x;
  }();
  std::vector<float> x(static_cast<size_t>(n));
  for (size_t at = 0; at < x.size(); at += stretch.size())
    std::copy_n(stretch.begin(), std::min(stretch.size(), x.size() - at), x.begin() + static_cast<std::ptrdiff_t>(at));
  return x;
}

void upload_noise(Backend& backend, Tensor to) {
  const std::vector<float> x = noise(std::min(to.size(), kStretch));
  const i64 count = static_cast<i64>(x.size());
  const Buffer memory(backend, aligned(count * static_cast<i64>(sizeof(float))), "random numbers");
  backend.upload(view(memory.data(), DType::f32, count), x.data());
  for (i64 at = 0; at < to.size(); at += count) {
    const i64 n = std::min(count, to.size() - at);
    backend.copy(view(static_cast<char*>(to.data) + at * bytes_of(to.dtype), to.dtype, n), view(memory.data(), DType::f32, n));
  }
}

struct RandomWeights final : WeightSource {
  DType weight_type(const std::string&) const override { return DType::bf16; }
  std::vector<std::byte> read(const std::string& name, Tensor shape, bool) const override {
    const float scale = shape.rank == 1 ? 0 : name.find("embed") != name.npos ? 1.0f : 0.03f, middle = shape.rank == 1 ? 1 : 0;
    const std::vector<float> x = noise(shape.size());
    std::vector<std::byte> bytes(static_cast<size_t>(shape.bytes()));
    for (size_t i = 0; i < x.size(); ++i) {
      const bf16 element(middle + scale * x[i]);
      std::memcpy(bytes.data() + i * sizeof element, &element, sizeof element);
    }
    return bytes;
  }
};

// Seconds of op, the best of several runs.
double seconds_of(Backend& backend, const std::function<void()>& op) {
  using Clock = std::chrono::steady_clock;
  const auto timed = [&](int runs) {
    backend.synchronize();
    const Clock::time_point start = Clock::now();
    for (int i = 0; i < runs; ++i) op();
    backend.synchronize();
    return std::chrono::duration<double>(Clock::now() - start).count() / runs;
  };
  const int runs = timed(1) < 0.005 ? 5 : 1;  // what takes long needs no average; the first run only warms up
  return std::min({timed(runs), timed(runs), timed(runs)});
}

struct Stopwatch {
  std::chrono::steady_clock::time_point start = std::chrono::steady_clock::now();
  double seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(); }
};

class Groups {
 public:
  Groups(Backend& backend, BenchReport& report) : backend_(backend), report_(report) {}
  // flops: of an op bound by arithmetic, else 0; bytes: what must move.
  void time(const std::string& name, double flops, double bytes, const std::function<void()>& op) {
    const auto same = [&](const BenchGroup& g) { return g.name == name; };
    auto group = std::find_if(report_.groups.begin(), report_.groups.end(), same);
    if (group == report_.groups.end()) group = report_.groups.insert(group, {name, 0, 0});
    group->seconds += seconds_of(backend_, op);
    group->floor += flops > 0 ? flops / (report_.peak_tflops * 1e12) : bytes / (report_.copy_rate * 1e9);
  }

 private:
  Backend& backend_;
  BenchReport& report_;
};

void time_groups(Backend& backend, const Program& program, const BlockWork& work, Tensor inputs, i64 tokens,
                 BenchReport& report) {
  Groups groups(backend, report);
  backend.fill(work.state().counters, 0);  // the loop is over: back to its first step
  const Plan& plan = work.plan();
  const Executor& executor = work.executor();
  const i64 batch = plan.options.batch;
  for (size_t s = 0; s < program.steps.size(); ++s) {
    const Step& step = program.steps[s];
    const std::string name = traits(step.op).name;
    groups.time(name + " forward", flops_forward(program, step, batch, tokens), bytes_forward(program, plan, s),
                [&] { executor.forward_step(s); });
    if (plan.steps[s].backward)
      groups.time(name + " backward", flops_backward(program, plan, s), bytes_backward(program, plan, s),
                  [&] { executor.backward_step(s, Acc::set); });
  }
  const BlockQuant& quant = work.parameters();
  double weights = 0, w_bytes = 0, dw_bytes = 0;
  quant.each([&](size_t i) {
    const double n = static_cast<double>(quant.tensors[i].w.size());
    weights += n, w_bytes += static_cast<double>(quant.tensors[i].w.bytes()),
        dw_bytes += static_cast<double>(executor.dw(i).bytes());
  });
  const std::vector<QdqStep> steps = quant.steps(executor);
  const size_t at_once = executor.keeps_weight_grads() ? steps.size() : 1;
  groups.time("quantize-dequantize, step", 0, 2 * w_bytes + dw_bytes + 8 * weights, [&] {
    for (size_t i = 0; i < steps.size(); i += at_once) backend.qdq_step(std::span(steps).subspan(i, at_once), work.state());
  });
  const Tensor out = executor.output();
  groups.time("gather", 0, 2.0 * static_cast<double>(out.bytes()),
              [&] { backend.gather(executor.input(), inputs, tokens, work.state()); });
  TuningState endless = work.state();  // a step that takes any number of losses
  endless.accumulate = i64{1} << 30;
  groups.time("loss", 0, 3.0 * static_cast<double>(out.bytes()),
              [&] { backend.mse(executor.output_grad(), out, {out, true}, tokens, true, endless); });
}

}  // namespace

BenchReport bench(const BenchOptions& options) {
  const QuantizeOptions& run = options.run;
  const Config config = config_of(options.shape);
  const std::unique_ptr<Backend> backend = make_backend(run.device, run.precision, run.graph);
  const RandomWeights source;
  const i64 cache = Chain::cache_bytes(*backend, run.nsamples, run.seqlen, config.hidden);
  const TuneOptions tune{.steps = run.iters, .batch = run.batch_size, .accumulate = run.accumulate, .tokens = run.seqlen,
                         .lr = 1 / static_cast<double>(run.iters), .minmax_lr = 1 / static_cast<double>(run.iters),
                         .search_bits = run.search_bits, .targets_ahead = targets_ahead(run.memory, cache)};
  const Program program = family_of(config).block(config, 0);
  std::vector<QuantSpec> specs;
  for (const WeightRef& w : program.weights) specs.push_back(w.linear ? run.spec : QuantSpec{.bits = 16});

  BenchReport report;
  report.device = backend->name();
  report.peak_tflops = matmul_tflops(*backend);
  report.copy_rate = copy_gigabytes(*backend);

  MemoryPlan sizes;
  Arena measure, measure_snapshots;
  BlockWork(measure, measure_snapshots, *backend, source, program, specs, tune);
  sizes.arena = measure.used(), sizes.snapshots = measure_snapshots.used();
  sizes.cache = cache;
  const MemoryPlan memory = arrange(sizes, run.memory, backend->free_bytes());
  report.planned_bytes = memory.device_bytes();
  const auto at = [&](bool on_host) -> Allocator& { return on_host ? backend->host_memory() : *backend; };
  report.device_bytes = report.planned_bytes;
  Chain chain(*backend, at(memory.inputs_on_host), at(memory.targets_on_host), run.nsamples, run.seqlen, config.hidden);
  Arena arena(*backend, memory.arena, "one block"), snapshots(at(memory.snapshots_on_host), memory.snapshots, "best parameters");

  PythonRandom random(run.seed);
  {
    PlanOptions plan;
    plan.batch = tune.batch, plan.tokens = tune.tokens;
    const Stage embedding(arena, *backend, source, llama_embedding(config), plan);
    embedding.load(false);
    std::vector<std::vector<i32>> samples(static_cast<size_t>(run.nsamples), std::vector<i32>(static_cast<size_t>(run.seqlen)));
    for (std::vector<i32>& sample : samples)
      for (i32& id : sample) id = static_cast<i32>(random.uniform() * kVocab);
    chain.embed(embedding, samples);
  }
  arena.rewind();
  const BlockWork work(arena, snapshots, *backend, source, program, specs, tune);
  work.load();
  for (const WeightRef& w : program.weights) report.weights += w.linear ? w.rows * w.cols : 0;
  work.run_original(chain);
  Sampler sampler(random, run.nsamples);
  const auto tune_once = [&] { work.tune(chain.quantized_input(), chain.target(), sampler, [](i64) {}); };
  tune_once();
  const Stopwatch tuning;
  tune_once();
  report.step_seconds = tuning.seconds() / static_cast<double>(tune.steps);
  report.step_tflops = work.flops_per_step() / report.step_seconds / 1e12;
  work.quantize();
  backend->synchronize();
  const Stopwatch forward;
  chain.run_quantized(work.executor());
  backend->synchronize();
  report.chain_seconds = 2 * forward.seconds();
  report.device_bytes = backend->peak_bytes();
  time_groups(*backend, program, work, chain.quantized_input(), tune.tokens, report);
  return report;
}

double matmul_tflops(Backend& backend) {
  double rate = 0;
  for (i64 side = 1024; side <= 8192; side *= 2) {
    const i64 bytes = aligned(side * side * bytes_of(backend.activation_type()));
    const Buffer memory(backend, 3 * bytes, "matrices to measure the device's speed");
    const auto matrix = [&](int i) {
      return view(static_cast<char*>(memory.data()) + i * bytes, backend.activation_type(), side, side);
    };
    for (int i = 1; i < 3; ++i) upload_noise(backend, matrix(i));
    const double seconds = seconds_of(backend, [&] { backend.linear(matrix(0), matrix(1), matrix(2), {}, {}); });
    rate = 2.0 * static_cast<double>(side * side * side) / seconds / 1e12;
    if (seconds > 1e-3) break;
  }
  return rate;
}

double copy_gigabytes(Backend& backend) {
  const i64 bytes = std::min(i64{1} << 29, backend.free_bytes() / 8 / kAlignment * kAlignment);
  const Buffer memory(backend, 2 * bytes, "memory to measure the rate of copies");
  const Tensor from = view(memory.data(), DType::u8, bytes),
               to = view(static_cast<char*>(memory.data()) + bytes, DType::u8, bytes);
  return 2 * static_cast<double>(bytes) / seconds_of(backend, [&] { backend.copy(to, from); }) / 1e9;
}

}  // namespace signround
