// The whole run on tiny models: the peer's bytes, the same bytes again, and nothing left behind when something is wrong.
#include <doctest/doctest.h>

#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <limits>

#include "eval/perplexity.h"
#include "export/convert.h"
#include "export/verify.h"
#include "io/checkpoint.h"
#include "ops/devices.h"
#include "pipeline/block_work.h"
#include "pipeline/quantize.h"
#include "scratch.h"
#include "testing.h"

using namespace signround;

namespace {

const std::string kPeer = "tests/data/peer/";

// Enough ids of the tiny models' vocabulary.
void write_ids(const Path& path, i64 count, i64 vocab) {
  Random random(3);
  std::string text;
  for (i64 i = 0; i < count; ++i) text += cat(random.engine() % static_cast<u64>(vocab), " ");
  write_file(path, text);
}

QuantizeOptions tiny(const TempDir& dir, const std::string& output) {
  QuantizeOptions o;
  o.model = kPeer + "tiny_llama";
  o.output = (dir.path / output).string();
  o.ids = (dir.path / "ids.txt").string();
  o.spec = {.bits = 2, .group = 32, .symmetric = true};
  o.iters = 6;
  o.nsamples = 10;
  o.seqlen = 16;
  o.batch_size = 4;
  return o;
}

QuantizeReport run(const QuantizeOptions& options) { return quantize(options, QuantizeObserver{}); }

std::vector<std::byte> tensor_bytes(const Checkpoint& checkpoint, const std::string& name) {
  std::vector<std::byte> bytes(checkpoint.at(name).bytes);
  checkpoint.read(name, bytes);
  return bytes;
}

// Every file of two directories, byte for byte.
bool same_files(const Path& a, const Path& b) {
  size_t count = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(a)) {
    if (!entry.is_regular_file()) continue;
    ++count;
    const Path other = b / std::filesystem::relative(entry.path(), a);
    if (!std::filesystem::exists(other) || read_file(entry.path(), 1 << 30) != read_file(other, 1 << 30)) return false;
  }
  for (const auto& entry : std::filesystem::recursive_directory_iterator(b)) count -= entry.is_regular_file();
  return count == 0;
}

bool nothing_but_ids(const TempDir& dir) {
  for (const auto& entry : std::filesystem::directory_iterator(dir.path))
    if (entry.path().filename() != "ids.txt" && entry.path().filename() != "model") return false;
  return true;
}

std::atomic<int> changes_until_fault;

int fail_when_due(std::string_view) { return changes_until_fault-- == 0 ? ENOSPC : 0; }

}  // namespace

TEST_CASE("quantize: round to nearest gives auto-round's bytes") {
  for (int bits : {2, 3, 4, 8})
    for (i64 group : {32, 64}) {
      CAPTURE(bits);
      CAPTURE(group);
      const TempDir dir;
      QuantizeOptions options = tiny(dir, "out");
      options.iters = 0;
      options.spec = {.bits = bits, .group = group, .symmetric = true};
      run(options);
      const Checkpoint ours(options.output), peer(kPeer + cat("tiny_rtn_b", bits, "_g", group, ".safetensors"));
      CHECK(peer.tensors().size() == 2 * 7 * 3);
      for (const TensorInfo* t : peer.tensors()) {
        CAPTURE(t->name);
        CHECK(ours.at(t->name).dtype == t->dtype);
        CHECK(ours.at(t->name).shape == t->shape);
        CHECK(tensor_bytes(ours, t->name) == tensor_bytes(peer, t->name));
      }
    }
}

TEST_CASE("quantize: the same command gives the same bytes, for any number of threads") {
  for (const bool asymmetric_accumulated : {false, true}) {
    const TempDir dir;
    write_ids(dir.path / "ids.txt", 400, 256);
    for (int threads : {1, 2, 3}) {
      const Threads scope(threads);
      QuantizeOptions options = tiny(dir, cat("out", threads));
      options.formats = {"fake"};
      if (asymmetric_accumulated) {
        options.spec.symmetric = false;
        options.batch_size = 2;
        options.accumulate = 3;
      }
      run(options);
    }
    CHECK(same_files(dir.path / "out1", dir.path / "out2"));
    CHECK(same_files(dir.path / "out1", dir.path / "out3"));
  }
}

TEST_CASE("quantize: tuning lowers the loss of every block") {
  const TempDir dir;
  write_ids(dir.path / "ids.txt", 400, 256);
  QuantizeOptions options = tiny(dir, "out");
  options.iters = 30;
  options.batch_size = options.nsamples;  // every step sees all samples: losses are comparable
  const QuantizeReport report = run(options);
  REQUIRE(report.blocks.size() == 2);
  for (const BlockReport& block : report.blocks) CHECK(block.best_loss < 0.8 * block.first_loss);
}

TEST_CASE("quantize: a search for the ranges starts nearer, and round to nearest has none") {
  const TempDir dir;
  write_ids(dir.path / "ids.txt", 400, 256);
  double first[2];
  for (int search_bits : {0, 3}) {
    QuantizeOptions options = tiny(dir, cat("out", search_bits));
    options.search_bits = search_bits;
    options.batch_size = options.nsamples;
    first[search_bits / 3] = run(options).blocks[0].first_loss;
    options.iters = 0;
    options.output += "-nearest";
    run(options);
  }
  CHECK(first[1] < 0.9 * first[0]);
  CHECK(same_files(dir.path / "out0-nearest", dir.path / "out3-nearest"));
}

TEST_CASE("quantize: all formats of a run hold the same weights") {
  const TempDir dir;
  write_ids(dir.path / "ids.txt", 400, 256);
  QuantizeOptions options = tiny(dir, "out");
  options.formats = {"auto_round", "fake", "compressed-tensors"};
  const QuantizeReport report = run(options);
  REQUIRE(report.outputs.size() == 3);
  PerplexityOptions eval{.model = report.outputs[0], .text = {}, .ids = options.ids, .seqlen = 32};
  const auto quiet = [](i64, i64) {};
  const PerplexityReport packed = perplexity(eval, quiet);
  eval.model = report.outputs[1];
  CHECK(packed.nll == perplexity(eval, quiet).nll);
  eval.model = report.outputs[2];
  CHECK(packed.nll == perplexity(eval, quiet).nll);
  CHECK(packed.tokens == 12 * 31);
  eval.model = options.model;
  CHECK(packed.nll != perplexity(eval, quiet).nll);
}

TEST_CASE("quantize: an odd number of samples, ignored layers, one batch for all") {
  const TempDir dir;
  write_ids(dir.path / "ids.txt", 400, 256);
  QuantizeOptions options = tiny(dir, "out");
  options.nsamples = 7;
  options.ignore_layers = {"down_proj"};
  const QuantizeReport report = run(options);
  CHECK(report.skipped.size() == 2);
  const Checkpoint made(options.output), source(options.model);
  const std::string kept = "model.layers.1.mlp.down_proj.weight";
  CHECK(tensor_bytes(made, kept) == tensor_bytes(source, kept));
  CHECK(made.find("model.layers.1.mlp.up_proj.qweight") != nullptr);
}

TEST_CASE("quantize: what is wrong with the input is named, and nothing is left behind") {
  const TempDir dir;
  write_ids(dir.path / "ids.txt", 400, 256);
  const auto refused = [&](const QuantizeOptions& options, ErrorKind kind, const std::string& part) {
    std::string message;
    try {
      run(options);
    } catch (const Error& e) {
      message = e.message;
      CHECK(e.kind == kind);
    }
    CAPTURE(message);
    CHECK(message.find(part) != std::string::npos);
    CHECK(message.find('\n') == std::string::npos);
    CHECK(nothing_but_ids(dir));
  };

  SUBCASE("NaN and infinity in a weight") {
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
      const Path model = dir.path / "model";
      std::filesystem::remove_all(model);
      std::filesystem::copy(kPeer + "tiny_llama", model);
      const TensorInfo tensor = Checkpoint(model).at("model.layers.1.mlp.up_proj.weight");
      std::string bytes = read_file(model / "model.safetensors", 1 << 30);
      const bf16 value(bad);
      std::memcpy(bytes.data() + tensor.offset + 77 * sizeof value, &value, sizeof value);
      write_file(model / "model.safetensors", bytes);
      QuantizeOptions options = tiny(dir, "out");
      options.model = model.string();
      refused(options, ErrorKind::bad_input, "\"model.layers.1.mlp.up_proj.weight\" has NaN or infinity at index 77");
      options.iters = 0;
      refused(options, ErrorKind::bad_input, "index 77");
    }
  }
  SUBCASE("ids beyond the vocabulary, too few, none") {
    write_file(dir.path / "ids.txt", "1 2 256 4");
    refused(tiny(dir, "out"), ErrorKind::bad_input, "256");
    write_file(dir.path / "ids.txt", "1 2 3 4");
    refused(tiny(dir, "out"), ErrorKind::bad_input, "4");
    write_file(dir.path / "ids.txt", "1 2 three");
    refused(tiny(dir, "out"), ErrorKind::bad_input, "ids.txt");
  }
  SUBCASE("a format that cannot hold the grid") {
    QuantizeOptions options = tiny(dir, "out");
    options.spec.symmetric = false;
    options.formats = {"gptq"};
    refused(options, ErrorKind::usage, "the nearest is --format gptq_v2");
  }
  SUBCASE("a value of the embedding that the format cannot hold") {
    const Path model = dir.path / "model";
    std::filesystem::copy("data/model", model);
    const std::string name = "model.embed_tokens.weight";
    const TensorInfo tensor = Checkpoint(model).at(name);
    REQUIRE(tensor.dtype == DType::bf16);
    std::string bytes = read_file(model / "model.safetensors", 1 << 30);
    const bf16 value(1e6f);
    std::memcpy(bytes.data() + tensor.offset + 77 * sizeof value, &value, sizeof value);
    write_file(model / "model.safetensors", bytes);
    QuantizeOptions options = tiny(dir, "out");
    options.model = model.string();
    options.iters = 0;
    options.spec = {.bits = 4, .group = 32, .symmetric = true};
    options.formats = {"gguf:q4_0"};
    refused(options, ErrorKind::bad_input, cat("tensor ", quote(name), ": the value at index 77 is not finite in F16"));
  }
  SUBCASE("a model that is quantized already") {
    QuantizeOptions options = tiny(dir, "model");
    run(options);
    options.model = options.output;
    options.output = (dir.path / "out").string();
    refused(options, ErrorKind::bad_input, "quantized already");
  }
  SUBCASE("stopped half way") {
    const std::atomic<bool> cancel = true;
    QuantizeObserver observer;
    observer.cancel = &cancel;
    CHECK_THROWS_AS(quantize(tiny(dir, "out"), observer), Error);
    CHECK(nothing_but_ids(dir));
  }
}

TEST_CASE("quantize: whichever change to the disk fails, while a block is tuned or after, it is told and nothing is left") {
  const TempDir dir;
  write_ids(dir.path / "ids.txt", 400, 256);
  QuantizeOptions options = tiny(dir, "out");
  options.iters = 1;
  int n = 0;
  for (; !path_exists(options.output); ++n) {
    CAPTURE(n);
    changes_until_fault = n;
    set_fault_hook(fail_when_due);
    const std::string error = error_of(ErrorKind::io, [&] { run(options); });
    set_fault_hook(nullptr);
    if (path_exists(options.output)) break;  // behind the renaming nothing is lost, or nothing failed
    REQUIRE(contains(error, "No space left on device"));
    CHECK(nothing_but_ids(dir));
  }
  CHECK(n > 50);
  CHECK(verify(options.output).layers == 14);
}

TEST_CASE("quantize: perplexity before and after, in the model card of every format") {
  const TempDir dir;
  write_file(dir / "text.txt", read_file("data/heldout.txt", 1 << 20).substr(0, 3000));
  QuantizeOptions o;
  o.model = "data/model";
  o.output = (dir / "out").string();
  o.spec = {2, 64, true};
  o.formats = {"gguf:q2_0", "auto_round"};
  o.iters = 0;
  o.seqlen = 128;
  o.ppl = (dir / "text.txt").string();
  const std::optional<Perplexities> found = run(o).perplexity;
  REQUIRE(found.has_value());
  const auto of = [&](const std::string& model) {
    return perplexity({.model = model, .text = o.ppl, .ids = "", .seqlen = o.seqlen}, [](i64, i64) {}).perplexity;
  };
  CHECK(found->before == of(o.model));
  CHECK(found->after == of(o.output + "/auto_round"));
  const std::string row =
      cat("| perplexity | ", found->before, " before, ", found->after, " after, on ", found->tokens, " tokens of text.txt |");
  convert({.input = o.output + "/auto_round", .output = o.output + "/later", .format = "gguf:q2_0"});
  for (const char* folder : {"gguf-q2_0", "auto_round", "later"})
    CHECK(contains(read_file(Path(o.output) / folder / "README.md", 1 << 20), row));
  o.formats = {"gguf:q2_0"};
  o.force = true;
  CHECK(contains(error_of(ErrorKind::usage, [&] { run(o); }), "--ppl: the perplexity of a GGUF file is not measured here"));
}

namespace {

struct NoWeights final : WeightSource {
  DType weight_type(const std::string&) const override { return DType::bf16; }
  std::vector<std::byte> read(const std::string&, Tensor, bool) const override { return {}; }
};

}  // namespace

TEST_CASE("quantize: gradients of a small block's weights are kept and used at once, a large one's are not") {
  const std::unique_ptr<Backend> backend = make_backend("cpu", {});
  Config config;
  config.architecture = "LlamaForCausalLM";
  config.heads = config.kv_heads = 2, config.head_dim = 16, config.hidden = 1024, config.norm_eps = 1e-5f;
  config.rope.inv_freq.assign(8, 1.0);
  for (i64 ffn : {64, 8192}) {  // 1.3 and 101 MB of gradients in float
    config.ffn = ffn;
    const Program program = llama_block(config, 0);
    std::vector<QuantSpec> specs;
    for (const WeightRef& w : program.weights) specs.push_back({.bits = w.linear ? 4 : 16});
    for (i64 accumulate : {1, 2}) {
      Arena measure, snapshots;
      const TuneOptions tune{.batch = 1, .accumulate = accumulate, .tokens = 16};
      const Plan plan = BlockWork(measure, snapshots, *backend, NoWeights(), program, specs, tune).plan();
      i64 grads = 0;
      for (size_t w = 0; w < specs.size(); ++w)
        if (specs[w].quantized()) grads += plan.placements[static_cast<size_t>(plan.dw[w])].bytes;
      const bool kept = ffn == 64 || accumulate == 2;
      CHECK(plan.options.keep_weight_grads == kept);
      const i64 wq = grads / 2;  // bf16
      CHECK((plan.bytes >= wq + grads) == kept);
    }
  }
}
