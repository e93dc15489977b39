// Mixtures of experts through the whole program: outputs hold the experts one by one, or as the original stacks them.
#include <doctest/doctest.h>

#include "export/convert.h"
#include "export/verify.h"
#include "layers.h"
#include "model/model.h"
#include "pipeline/quantize.h"
#include "scratch.h"
#include "testing.h"

using namespace signround;

namespace {

const Path kFamilies = "tests/data/families";

// Samples of `vocabulary` different tokens.
QuantizeReport quantize(const TempDir& dir, const std::string& model, const std::string& out, i64 vocabulary,
                        const std::function<void(QuantizeOptions&)>& change) {
  std::string ids;
  Random random(5);
  for (int i = 0; i < 64; ++i) ids += cat(3 + random.engine() % static_cast<u64>(vocabulary), " ");
  write_file(dir.path / "ids.txt", ids);
  QuantizeOptions o;
  o.model = (kFamilies / model).string();
  o.output = (dir.path / out).string();
  o.ids = (dir.path / "ids.txt").string();
  o.spec = {.bits = 4, .group = 32, .symmetric = true};
  o.iters = 6;
  o.nsamples = o.batch_size = 4;
  o.seqlen = 16;
  o.device = "cpu";
  change(o);
  return quantize(o, QuantizeObserver{});
}

// All weights of a block's experts, as the programs see them.
std::vector<std::vector<std::byte>> expert_weights(const Model& model, i64 layer) {
  const Program block = model.family().block(model.config(), layer);
  std::vector<std::vector<std::byte>> all;
  for (const WeightRef& w : block.weights)
    if (w.experts > 0) all.push_back(model.read(block.prefix + w.name, view(nullptr, DType::bf16, w.rows, w.cols), true));
  return all;
}

std::vector<std::string> tensor_names(const Path& model) {
  const Checkpoint checkpoint(model);
  std::vector<std::string> names;
  for (const TensorInfo* t : checkpoint.tensors()) names.push_back(t->name);
  return names;
}

}  // namespace

TEST_CASE("experts: every format holds the same weights, and verifies") {
  for (const std::string name : {"mixtral", "mixtral_stacked", "qwen2_moe", "qwen3_moe_stacked"}) {
    CAPTURE(name);
    const std::string mlp = cat("model.layers.0.", name.starts_with("mixtral") ? "block_sparse_moe" : "mlp");
    const TempDir dir;
    const std::vector<std::string> formats = {"auto_round", "gptq", "compressed-tensors", "fake"};
    quantize(dir, name, "out", 60, [&](QuantizeOptions& o) { o.formats = formats; });
    const auto want = expert_weights(Model((dir.path / "out/fake").string()), 0);
    CHECK(want != expert_weights(Model((kFamilies / name).string()), 0));
    for (const std::string& format : formats) {
      CAPTURE(format);
      const Path out = dir.path / "out" / format;
      CHECK(verify(out).layers > 0);

      const Checkpoint checkpoint(out);
      if (const auto packed = PackedWeights::described_by(checkpoint.config())) {
        const std::string layer = mlp + (name.starts_with("mixtral") ? ".experts.3.w3" : ".experts.3.up_proj");
        REQUIRE(packed->holds(checkpoint, layer));
        std::vector<std::byte> bytes(32 * 32 * 2);
        dequantize(view(bytes.data(), DType::bf16, 32, 32), packed->read(checkpoint, layer, DType::bf16));
        const std::vector<std::byte>& up = want[1];
        CHECK(std::equal(bytes.begin(), bytes.end(), up.begin() + 3 * 32 * 32 * 2));
        CHECK(checkpoint.find(mlp + ".gate.weight") != nullptr);
        for (const std::string& tensor : tensor_names(out)) CHECK(!contains(tensor, "gate_up_proj"));
      } else {
        CHECK(tensor_names(out) == tensor_names(kFamilies / name));  // stacked stays stacked
      }
    }
    convert({.input = (dir.path / "out/gptq").string(), .output = (dir.path / "again").string(), .format = "auto_round"});
    CHECK(read_file(dir.path / "again/model.safetensors", 1 << 24) ==
          read_file(dir.path / "out/auto_round/model.safetensors", 1 << 24));
  }
}

TEST_CASE("experts: AWQ holds them with zero points") {
  const TempDir dir;
  quantize(dir, "qwen3_moe", "out", 60, [](QuantizeOptions& o) { o.formats = {"awq"}, o.spec.symmetric = false; });
  CHECK(verify(dir.path / "out").layers == 7 + 4 + 7 * 3);
}

TEST_CASE("experts: one that meets no token is named, and rounded to nearest") {
  const TempDir dir;
  const QuantizeReport tuned =
      quantize(dir, "qwen3_moe_stacked", "tuned", 1, [](QuantizeOptions& o) { o.formats = {"fake"}, o.lr = 0.05; });
  quantize(dir, "qwen3_moe_stacked", "nearest", 1, [](QuantizeOptions& o) { o.formats = {"fake"}, o.iters = 0; });
  const auto got = expert_weights(Model((dir.path / "tuned").string()), 0);
  const auto nearest = expert_weights(Model((dir.path / "nearest").string()), 0);
  const std::vector<std::string>& idle = tuned.blocks[0].idle_experts;
  CHECK(!idle.empty());
  CHECK(idle.size() < 4);
  CHECK(tuned.blocks[0].best_step > 0);
  for (i64 e = 0; e < 4; ++e) {
    CAPTURE(e);
    const bool named = std::find(idle.begin(), idle.end(), cat("model.layers.0.mlp.experts.", e)) != idle.end();
    bool same = true;
    for (size_t w = 0; w < got.size(); ++w) {
      const auto part = static_cast<std::ptrdiff_t>(got[w].size() / 4);
      same &= std::equal(got[w].begin() + e * part, got[w].begin() + (e + 1) * part, nearest[w].begin() + e * part);
    }
    CHECK(same == named);
  }
}

TEST_CASE("experts: routers stay, and what leaves out one expert leaves out all") {
  for (const char* format : {"fake", "gptq"}) {
    CAPTURE(format);
    const TempDir dir;
    const QuantizeReport report = quantize(dir, "qwen2_moe_stacked", "out", 60, [&](QuantizeOptions& o) {
      o.formats = {format};
      o.ignore_layers = {"layers.0.mlp.experts.2.down_proj"};
    });
    const std::vector<std::string>& skipped = report.skipped;
    const auto left = [&](const std::string& start) {
      return std::any_of(skipped.begin(), skipped.end(), [&](const std::string& s) { return s.starts_with(start); });
    };
    CHECK(left("model.layers.0.mlp.gate: it decides over other layers"));
    CHECK(left("model.layers.1.mlp.shared_expert_gate: it decides"));
    CHECK(left("model.layers.0.mlp.experts.*.down_proj: ignored by"));
    CHECK(!left("model.layers.1.mlp.experts"));
    const auto got = expert_weights(Model((dir.path / "out").string()), 0);
    const auto original = expert_weights(Model((kFamilies / "qwen2_moe_stacked").string()), 0);
    CHECK(got[2] == original[2]);
    CHECK(got[1] != original[1]);
    CHECK(verify(dir.path / "out").layers > 0);
  }
}

TEST_CASE("experts: stacks that do not fit config.json are refused by name") {
  const TempDir dir;
  const auto refusal = [&](const char* key, Json value) {
    std::filesystem::copy(kFamilies / "qwen3_moe_stacked", dir.path / key);
    Json config = parse_json(read_file(dir.path / key / "config.json", 1 << 20));
    config.set(key, std::move(value));
    write_file(dir.path / key / "config.json", to_text(config));
    return message_of(ErrorKind::bad_input, [&] { Model((dir.path / key).string()); });
  };
  CHECK(contains(refusal("num_local_experts", 3), "mlp.gate.weight\" is [4,32], but config.json asks for [3,32]"));
  CHECK(contains(refusal("moe_intermediate_size", 64), "experts.0.gate_proj.weight\" is [32,32], but config.json asks for"));
  CHECK(contains(refusal("num_experts_per_tok", 5), "num_experts_per_tok is 5; it must lie in 1..4"));
}
