// GGUF of families with a layout of their own, and SentencePiece's tokenizer in it. llama.cpp's own reading: make test-interop.
#include <doctest/doctest.h>

#include <cstring>

#include "export/gguf_names.h"
#include "export/gguf_tokenizer.h"
#include "export/verify.h"
#include "io/checkpoint.h"
#include "pipeline/quantize.h"
#include "scratch.h"

using namespace signround;

namespace {

const std::string kFamilies = "tests/data/families/";

template <class T>
T value(const GgufValues& values, const std::string& key) {
  for (const auto& [name, v] : values)
    if (name == key) return std::get<T>(v);
  FAIL("no value ", key);
  return {};
}

bool has(const GgufValues& values, const std::string& key) {
  return std::any_of(values.begin(), values.end(), [&](const auto& v) { return v.first == key; });
}

Json config_of(const std::string& family) { return read_json(kFamilies + family + "/config.json"); }

std::string refusal(Json json, const char* key, Json changed) {
  json.set(key, std::move(changed));
  return error_of(ErrorKind::usage, [&] {
    const Config config = read_config(json);
    gguf_rope(config, gguf_architecture(config), json);
    gguf_values(config, gguf_architecture(config), 1);
  });
}

// A tokenizer of SentencePiece's kind: " ab" and "ab" are tokens, and all pairs that make them are merges.
Json sentencepiece(const std::string& merges = R"([["a","b"],["▁","a"],["▁","ab"],["▁a","b"]])") {
  return parse_json(R"({
    "added_tokens": [{"id": 1, "content": "<s>", "special": true}, {"id": 9, "content": "▁▁", "special": false}],
    "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"},
                   {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
    "pre_tokenizer": null, "post_processor": null,
    "model": {"type": "BPE", "byte_fallback": true, "unk_token": "<unk>", "merges": )" + merges + R"(,
      "vocab": {"<unk>": 0, "<s>": 1, "<0x41>": 2, "▁": 3, "a": 4, "b": 5, "ab": 6, "▁ab": 7, "▁a": 8}}})");
}

GgufValues tokenizer_values(const Json& tokenizer) {
  const TempDir dir;
  write_file(dir / "tokenizer.json", to_text(tokenizer));
  return gguf_tokenizer(dir.path, Json::object({}), 12);
}

std::string tokenizer_refusal(const Json& tokenizer) {
  return error_of(ErrorKind::usage, [&] { tokenizer_values(tokenizer); });
}

Json changed(Json tokenizer, const char* key, const std::string& json) {
  tokenizer.set(key, parse_json(json));
  return tokenizer;
}

// A family's tiny model with that tokenizer, rounded to nearest.
Path quantized(const TempDir& dir, const std::string& family, const Json& config, std::vector<std::string> ignored = {}) {
  const Path model = dir / "model";
  make_directories(model);
  copy_bytes(kFamilies + family + "/model.safetensors", model / "model.safetensors");
  write_file(model / "config.json", to_text(config));
  write_file(model / "tokenizer.json", to_text(sentencepiece()));
  QuantizeOptions options;
  options.model = model.string();
  options.output = (dir / "out").string();
  options.spec = {8, 32, true};
  options.formats = {"gguf:q8_0"};
  options.iters = 0;
  options.ignore_layers = std::move(ignored);
  quantize(options, QuantizeObserver{});
  return dir / "out";
}

}  // namespace

TEST_CASE("gguf families: Gemma's numbers, and what llama.cpp does not have of them") {
  Json two = config_of("gemma2"), three = config_of("gemma3");
  CHECK(contains(refusal(two, "query_pre_attn_scalar", 24), "no query_pre_attn_scalar but 16 in a model of this size"));
  two.set("query_pre_attn_scalar", 16);
  three.set("query_pre_attn_scalar", 16);
  const Config config = read_config(two), later = read_config(three);
  const GgufValues values = gguf_values(config, gguf_architecture(config), 7);
  CHECK(value<std::string>(values, "general.architecture") == "gemma2");
  CHECK(value<u32>(values, "gemma2.attention.sliding_window") == 5);
  CHECK_FALSE(has(values, "gemma2.attention.sliding_window_pattern"));  // every other layer, as llama.cpp has it
  CHECK(value<float>(values, "gemma2.attn_logit_softcapping") == 3);
  CHECK(value<float>(values, "gemma2.final_logit_softcapping") == 2);
  CHECK(value<u32>(gguf_values(later, gguf_architecture(later), 7), "gemma3.attention.sliding_window_pattern") == 2);
  const GgufRope rope = gguf_rope(later, gguf_architecture(later), three);
  CHECK(rope.factors.empty());
  CHECK(value<float>(rope.values, "gemma3.rope.freq_base") == 1e6f);
  CHECK(value<std::string>(rope.values, "gemma3.rope.scaling.type") == "linear");
  CHECK(value<float>(rope.values, "gemma3.rope.scaling.factor") == doctest::Approx(8));
  CHECK(contains(refusal(two, "attn_logit_softcapping", Json()), "no such softcaps"));
  CHECK(contains(refusal(two, "attention_bias", true), "no biases in Gemma2ForCausalLM"));
  CHECK(contains(refusal(two, "hidden_activation", "silu"), "no activation but one"));
  CHECK(contains(refusal(two, "layer_types", Json::array({"full_attention", "sliding_attention"})), "such a pattern of windows"));
  const auto name = [&](const std::string& norm) { return gguf_name("model.layers.1." + norm, gguf_architecture(config)); };
  CHECK(name("post_attention_layernorm.weight") == "blk.1.post_attention_norm.weight");
  CHECK(name("pre_feedforward_layernorm.weight") == "blk.1.ffn_norm.weight");
  CHECK(name("post_feedforward_layernorm.weight") == "blk.1.post_ffw_norm.weight");
}

TEST_CASE("gguf families: Phi-3's longrope and fused layers") {
  const Json json = config_of("phi3");
  const Config config = read_config(json);
  const GgufRope rope = gguf_rope(config, gguf_architecture(config), json);
  const std::vector<float> shorter = rope.factors.at("rope_factors_short.weight");
  const std::vector<float> longer = rope.factors.at("rope_factors_long.weight");
  for (size_t i = 0; i < 4; ++i) {
    CHECK(shorter[i] == doctest::Approx(std::vector<double>{1.0, 1.1, 1.2, 1.3}[i]));
    CHECK(longer[i] == doctest::Approx(std::vector<double>{1.5, 2.0, 3.0, 5.0}[i]));
  }
  CHECK(value<u32>(rope.values, "phi3.rope.scaling.original_context_length") == 16);
  CHECK(value<float>(rope.values, "phi3.rope.scaling.attn_factor") == doctest::Approx(std::sqrt(1.5)));
  const Json four = config_of("phi4");
  const Config later = read_config(four);
  CHECK(value<u32>(gguf_values(later, gguf_architecture(later), 7), "phi3.rope.dimension_count") == 4);
  CHECK(value<u32>(gguf_values(later, gguf_architecture(later), 7), "phi3.attention.sliding_window") == 0);

  const TempDir dir;
  const Path out = quantized(dir, "phi3", json);
  CHECK(verify(out).layers == 8);
  std::vector<std::string> names;
  const GgufFile file(out / "model.gguf");
  for (const GgufTensor& t : file.tensors()) names.push_back(t.name);
  for (const char* name : {"blk.1.attn_qkv.weight", "blk.1.ffn_up.weight", "rope_factors_long.weight", "output.weight"})
    CHECK(std::find(names.begin(), names.end(), name) != names.end());
}

TEST_CASE("gguf families: Gemma's norms are written as they are used") {
  for (const char* family : {"gemma2", "gemma3"}) {
    Json json = config_of(family);
    json.set("query_pre_attn_scalar", 16);
    const TempDir dir;
    const Path out = quantized(dir, family, json);
    CHECK(verify(out).layers == 14);
    const Checkpoint source(kFamilies + family);
    std::vector<bf16> norm(32);
    source.read("model.layers.0.post_feedforward_layernorm.weight", std::as_writable_bytes(std::span(norm)));
    const GgufFile file(out / "model.gguf");
    i64 found = 0;
    for (const GgufTensor& t : file.tensors()) {
      if (t.name != "blk.0.post_ffw_norm.weight") continue;
      const std::vector<std::byte> bytes = file.read(t);
      for (size_t i = 0; i < norm.size(); ++i) {
        float written;
        std::memcpy(&written, bytes.data() + 4 * i, 4);
        found += written == static_cast<float>(norm[i]) + 1;
      }
    }
    CHECK(found == 32);
  }
}

TEST_CASE("gguf families: experts are stacked, whether the original stacks them or not") {
  for (const std::string family : {"mixtral", "qwen3_moe_stacked"}) {
    CAPTURE(family);
    Json json = config_of(family);
    json.set("norm_topk_prob", true);
    json.set("use_sliding_window", false);
    const i64 experts = family == "mixtral" ? 5 : 4;
    const TempDir dir;
    const bool apart = family == "mixtral";
    const Path out = quantized(dir, family, json, {apart ? "layers.1.block_sparse_moe.experts" : "layers.1.mlp.experts"});
    CHECK(verify(out).layers == 2 * 2 + experts * 3);  // k and v are too narrow
    const GgufFile file(out / "model.gguf");
    std::map<std::string, GgufTensor> tensors;
    for (const GgufTensor& t : file.tensors()) tensors[t.name] = t;
    const GgufTensor &tuned = tensors.at("blk.0.ffn_up_exps.weight"), &left = tensors.at("blk.1.ffn_up_exps.weight");
    CHECK(tuned.shape == std::vector<i64>{experts, 32, 32});
    CHECK(tuned.type == GgmlType::q8_0);
    CHECK(left.shape == tuned.shape);
    CHECK(left.type == GgmlType::f16);
    CHECK(tensors.at("blk.1.ffn_gate_inp.weight").type == GgmlType::f32);
    std::vector<bf16> up(32 * 32);
    Checkpoint(kFamilies + family).read_part(apart ? "model.layers.1.block_sparse_moe.experts.2.w3.weight"
                                                   : "model.layers.1.mlp.experts.gate_up_proj",
                                             apart ? 0 : (2 * 2 + 1) * 32 * 32 * 2, std::as_writable_bytes(std::span(up)));
    const std::vector<std::byte> written = file.read(left);
    i64 same = 0;
    for (size_t i = 0; i < up.size(); ++i) {
      f16 value;
      std::memcpy(&value, written.data() + (2 * 32 * 32 + i) * 2, 2);
      same += static_cast<float>(value) == static_cast<float>(f16(static_cast<float>(up[i])));
    }
    CHECK(same == 32 * 32);
    std::string bytes = read_file(out / "model.gguf", 1 << 24);
    bytes[tuned.offset + tuned.bytes / static_cast<u64>(experts) + 7] ^= 1;
    write_file(out / "model.gguf", bytes);
    CHECK(error_of(ErrorKind::verification, [&] { verify(out); })
              .find(apart ? "block_sparse_moe.experts.1.w3: decodes to other" : "mlp.experts.1.up_proj: decodes to other") !=
          std::string::npos);
  }
  CHECK(refusal(config_of("qwen2_moe"), "mlp_only_layers", Json::array({})).empty());
  CHECK(refusal(config_of("qwen2_moe"), "norm_topk_prob", true).find("no weights of experts that sum to 1") != std::string::npos);
  CHECK(refusal(config_of("qwen2_moe"), "hidden_act", "silu").find("no layers without experts") != std::string::npos);
}

TEST_CASE("gguf tokenizer: SentencePiece's, where scores say what the merges say") {
  const GgufValues values = tokenizer_values(sentencepiece());
  CHECK(value<std::string>(values, "tokenizer.ggml.model") == "llama");
  CHECK(value<std::string>(values, "tokenizer.ggml.pre") == "default");
  CHECK(value<bool>(values, "tokenizer.ggml.add_space_prefix"));
  CHECK(value<u32>(values, "tokenizer.ggml.unknown_token_id") == 0);
  const std::vector<float> scores = value<std::vector<float>>(values, "tokenizer.ggml.scores");
  CHECK(scores[6] == 0);  // "ab", then "▁a", then "▁ab"
  CHECK(scores[8] == -1);
  CHECK(scores[7] == -2);
  CHECK(value<std::vector<i32>>(values, "tokenizer.ggml.token_type") == std::vector<i32>{2, 3, 6, 1, 1, 1, 1, 1, 1, 4, 5, 5});
  CHECK(value<std::vector<std::string>>(values, "tokenizer.ggml.tokens")[9] == "  ");  // sought before spaces are replaced

  const std::string space = R"({"type": "Replace", "pattern": {"String": " "}, "content": "▁"})";
  CHECK_FALSE(value<bool>(tokenizer_values(changed(sentencepiece(), "normalizer", space)), "tokenizer.ggml.add_space_prefix"));
  const Json newer = changed(changed(sentencepiece(), "normalizer", "null"), "pre_tokenizer",
                             R"({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": false})");
  CHECK(value<bool>(tokenizer_values(newer), "tokenizer.ggml.add_space_prefix"));
  CHECK(contains(tokenizer_refusal(changed(newer, "normalizer", space)), "these normalizer and pre_tokenizer"));
  CHECK(contains(tokenizer_refusal(changed(sentencepiece(), "normalizer", "null")), "these normalizer and pre_tokenizer"));
  CHECK(contains(tokenizer_refusal(sentencepiece(R"([["a","b"],["▁","a"],["▁","ab"]])")),
                 "\"▁a\" and \"b\" do not merge to"));
  const std::string apart = R"([["▁","ab"],["a","b"],["▁","a"],["▁a","b"]])";
  CHECK(contains(tokenizer_refusal(sentencepiece(apart)), "\"▁ab\" at two places"));
  const Json prefix = parse_json(R"({"added_tokens": [], "normalizer": null, "model": {"type": "BPE", "vocab": {}, "merges": []},
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": true}})");
  CHECK(contains(tokenizer_refusal(prefix), "no name for this pre_tokenizer"));
}
