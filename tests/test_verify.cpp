// Outputs that say what they hold: digests, `verify` on sound and damaged ones, `export` against a direct run, who can load what.
#include <doctest/doctest.h>

#include <cstring>

#include "export/convert.h"
#include "export/verify.h"
#include "io/sha256.h"
#include "layers.h"
#include "pipeline/quantize.h"
#include "scratch.h"
#include "testing.h"

using namespace signround;

namespace {

// tiny_llama rounded to nearest, a folder a format.
struct Outputs {
  TempDir dir;
  explicit Outputs(const std::vector<std::string>& formats, const QuantSpec& spec = {4, 32, true},
                   u64 shard_bytes = kShardBytes) {
    QuantizeOptions options;
    options.model = "tests/data/peer/tiny_llama";
    options.output = (dir.path / "out").string();
    options.spec = spec;
    options.formats = formats;
    options.formats.push_back("fake");  // so that there is a folder for each
    options.iters = 0;
    options.ignore_layers = {"layers.1.self_attn.o_proj"};
    options.shard_bytes = shard_bytes;
    quantize(options, QuantizeObserver{});
  }
  Path operator[](const std::string& format) const { return dir.path / "out" / format; }
};

std::string found_off(const Path& path) {
  return message_of(ErrorKind::verification, [&] { verify(path); });
}

void change_text(const Path& path, const std::string& from, const std::string& to) {
  std::string text = read_file(path, 1 << 30);
  REQUIRE(contains(text, from));
  write_file(path, text.replace(text.find(from), from.size(), to));
}

// Element `index` of a tensor becomes `value`.
template <class T>
void change_tensor(const Path& model, const std::string& name, i64 index, T value) {
  const TensorInfo tensor = Checkpoint(model).at(name);
  std::string bytes = read_file(model / "model.safetensors", 1 << 30);
  std::memcpy(bytes.data() + tensor.offset + static_cast<u64>(index) * sizeof value, &value, sizeof value);
  write_file(model / "model.safetensors", bytes);
}

void add_tensor(const Path& model, const std::string& name) {
  const Checkpoint old(model);
  std::vector<TensorInfo> tensors = {tensor_info(name, DType::u8, {1})};
  for (const TensorInfo* tensor : old.tensors()) tensors.push_back(*tensor);
  SafetensorsWriter writer(model / "new", tensors);
  for (const TensorInfo& tensor : tensors) {
    std::vector<std::byte> bytes(tensor.bytes);
    if (tensor.name != name) old.read(tensor.name, bytes);
    writer.write(tensor.name, bytes);
  }
  writer.finish();
  rename_path(model / "new", model / "model.safetensors");
}

bool same_files(const Path& a, const Path& b) {
  const std::vector<Path> left = list_directory(a), right = list_directory(b);
  for (size_t i = 0; i < std::min(left.size(), right.size()); ++i)
    if (left[i].filename() != right[i].filename() || read_file(left[i], 1 << 30) != read_file(right[i], 1 << 30)) return false;
  return left.size() == right.size();
}

const Verdict& of(const std::vector<Verdict>& verdicts, const std::string& engine) {
  for (const Verdict& v : verdicts)
    if (v.engine == engine) return v;
  FAIL("no verdict on ", engine);
  return verdicts[0];
}

}  // namespace

TEST_CASE("sha256: the standard's own vectors") {
  CHECK(sha256_text("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(sha256_text("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(sha256_text("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq") ==
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  CHECK(sha256_text(std::string(1000000, 'a')) == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
  std::string text(3000, 0);
  Random random;
  for (char& c : text) c = static_cast<char>(random.engine());
  for (size_t cut : {0, 1, 55, 56, 63, 64, 65, 128, 2999}) {  // in two parts as in one, with the processor's help or without
    Sha256 whole(true), parts;
    whole.update(std::as_bytes(std::span(text)));
    parts.update(std::as_bytes(std::span(text).first(cut)));
    parts.update(std::as_bytes(std::span(text).subspan(cut)));
    CHECK(whole.finish() == parts.finish());
  }
}

TEST_CASE("sha256: digests of large buffers, whole or part after part") {
  const std::string text(3 * Digest::kPiece + 5, 'x');
  const std::span<const std::byte> bytes = std::as_bytes(std::span(text));
  Sha256 first, last, all;
  first.update(bytes.first(Digest::kPiece));
  last.update(bytes.last(5));
  const std::array<u8, 32> digest = first.finish();
  for (int i = 0; i < 3; ++i) all.update(std::as_bytes(std::span(digest)));
  const std::array<u8, 32> end = last.finish();
  all.update(std::as_bytes(std::span(end)));
  std::string expected;
  for (const u8 b : all.finish()) expected += {"0123456789abcdef"[b >> 4], "0123456789abcdef"[b & 15]};
  CHECK(digest_of(bytes) == expected);
  Digest parts;
  parts.update(bytes.first(2 * Digest::kPiece));
  parts.update(bytes.subspan(2 * Digest::kPiece));
  CHECK(parts.text() == expected);
}

TEST_CASE("verify: what was written is right, in shards too") {
  const Outputs sym({"auto_round", "gptq", "gptq_v2", "compressed-tensors"});
  const Outputs asym({"auto_round", "awq", "gptq_v2"}, {4, 32, false});
  for (const char* format : {"auto_round", "gptq", "gptq_v2", "compressed-tensors", "fake"})
    CHECK(verify(sym[format]).layers == 13);
  for (const char* format : {"auto_round", "awq", "gptq_v2", "fake"}) CHECK(verify(asym[format]).layers == 13);
  const Outputs shards({"gptq"}, {4, 32, true}, 20000);
  CHECK(verify(shards["gptq"]).tensors == verify(sym["gptq"]).tensors);
  CHECK(path_exists(shards["gptq"] / "model.safetensors.index.json"));
}

TEST_CASE("verify: every kind of damage is named") {
  const Outputs outputs({"auto_round"});
  const Path path = outputs["auto_round"], weights = path / "model.safetensors";
  const std::string layer = "model.layers.0.mlp.up_proj";
  SUBCASE("another convention of zero points") {
    change_text(path / "config.json", "auto_round:auto_gptq", "auto_round");
    CHECK(contains(found_off(path), "zero point of 7 cannot be in a symmetric grid"));
    change_text(path / "config.json", "\"sym\": true", "\"sym\": false");
    CHECK(contains(found_off(path), "config.json says 4 bits in groups of 32, asymmetric; it was tuned"));
  }
  SUBCASE("another group size") {
    change_text(path / "config.json", "\"group_size\": 32", "\"group_size\": 64");
    CHECK(contains(found_off(path), "where bits and group size of config.json want"));
  }
  SUBCASE("another integer") {
    change_tensor<u32>(path, layer + ".qweight", 5, 0);
    CHECK(found_off(path) == layer + ": decodes to other integers or scales than were tuned");
  }
  SUBCASE("a scale that is no number") {
    change_tensor<u16>(path, layer + ".scales", 5, 0x7E00);
    CHECK(contains(found_off(path), ".scales: element [0,5] is not finite"));
  }
  SUBCASE("NaN in a tensor that is not quantized, then another number") {
    change_tensor<u16>(path, "model.norm.weight", 3, 0x7FC0);
    CHECK(found_off(path) == "tensor \"model.norm.weight\": NaN or infinity at index 3");
    change_tensor<u16>(path, "model.norm.weight", 3, 0x1234);
    CHECK(found_off(path) == "tensor \"model.norm.weight\": its bytes are not those that were written");
  }
  SUBCASE("files missing and changed") {
    change_text(path / "README.md", "SignRound", "Signround");
    CHECK(contains(found_off(path), "README.md: is not the file that was written"));
    remove_tree(path / "quantization_config.json");
    CHECK(contains(found_off(path), "quantization_config.json: is missing"));
    remove_tree(path / "signround.json");
    CHECK(contains(message_of(ErrorKind::bad_input, [&] { verify(path); }), "only what this program wrote has it"));
  }
  SUBCASE("other bits") {
    change_text(path / "config.json", "\"bits\": 4", "\"bits\": 2");
    CHECK(contains(found_off(path), "where bits and group size of config.json want"));
  }
  SUBCASE("a configuration that does not quantize") {
    change_text(path / "config.json", "quantization_config", "quantisation_config");
    CHECK(found_off(path) == "config.json: has no quantization_config, but the format is auto_round");
  }
  SUBCASE("another side file") {
    write_file(path / "generation_config.json", "{}");
    CHECK(contains(found_off(path), "generation_config.json: is not the file that was written"));
  }
  SUBCASE("a tensor missing, of a layer and of none; one too many") {
    const std::string bytes = read_file(weights, 1 << 30);
    change_text(weights, layer + ".qzeros", layer + ".qzerox");
    CHECK(contains(found_off(path), "has no tensor \"" + layer + ".qzeros\""));
    write_file(weights, bytes);
    change_text(weights, "model.norm.weight", "model.norm.height");
    CHECK(found_off(path) == "tensor \"model.norm.weight\": is missing");
    write_file(weights, bytes);
    add_tensor(path, "model.layers.0.mlp.extra.weight");
    CHECK(found_off(path) == "tensor \"model.layers.0.mlp.extra.weight\": was not written by this program");
  }
  SUBCASE("another type for the same bytes") {
    change_text(weights, "\"model.norm.weight\":{\"dtype\":\"BF16\"", "\"model.norm.weight\":{\"dtype\":\"F16\" ");
    CHECK(contains(found_off(path), "model.safetensors: what is in front of the tensors is not what was written"));
  }
  SUBCASE("a file cut short, or longer") {
    const std::string bytes = read_file(weights, 1 << 30);
    write_file(weights, bytes.substr(0, bytes.size() - 1));
    CHECK(contains(found_off(path), "is it complete?"));
    write_file(weights, bytes + "x");
    CHECK(contains(found_off(path), "the last 1 bytes of the file belong to no tensor"));
    write_file(weights, bytes.substr(0, 100));
    CHECK(contains(found_off(path), "model.safetensors: header: its length is"));
  }
  SUBCASE("the manifest itself") {
    const std::string text = read_file(path / "signround.json", 1 << 30);
    for (const auto& [from, to] : {std::pair("\"seed\": 42", "\"seed\": 43"),
                                   {"\"README.md\":", "\"README.me\":"},
                                   {"\"model.norm.weight\":", "\"model.norm.other\":"}}) {
      change_text(path / "signround.json", from, to);
      CHECK(contains(found_off(path), "signround.json: was changed"));
      write_file(path / "signround.json", text);
    }
    write_file(path / "signround.json", text.substr(0, text.size() / 2));
    CHECK(contains(message_of(ErrorKind::bad_input, [&] { verify(path); }), "signround.json"));
  }
}

TEST_CASE("verify: shards that are missing or in each other's place") {
  const Outputs outputs({"gptq"}, {4, 32, true}, 20000);
  const Path path = outputs["gptq"];
  std::vector<Path> shards = list_directory(path);
  std::erase_if(shards, [](const Path& file) { return file.extension() != ".safetensors"; });
  REQUIRE(shards.size() > 2);
  const Path first = shards[0];
  const std::string bytes = read_file(first, 1 << 30);
  write_file(first, read_file(shards[1], 1 << 30));
  CHECK(contains(found_off(path), ": is in "));
  remove_tree(first);
  CHECK(contains(found_off(path), first.filename().string()));
  write_file(first, bytes);
  change_text(path / "model.safetensors.index.json", "\"total_size\": ", "\"total_size\": 1");
  CHECK(contains(found_off(path), "model.safetensors.index.json: is not the file that was written"));
}

TEST_CASE("verify: zero points off by one in an asymmetric grid") {
  const Outputs outputs({"gptq_v2"}, {4, 32, false});
  change_text(outputs["gptq_v2"] / "config.json", "\"gptq_v2\"", "\"gptq\"");
  CHECK(contains(found_off(outputs["gptq_v2"]), "every zero point is off by 1: config.json names another convention"));
}

TEST_CASE("export: byte for byte what the run would have written") {
  const std::vector<std::string> sym = {"auto_round", "gptq", "gptq_v2", "compressed-tensors"};
  const Outputs outputs(sym);
  const auto exported = [&](const Outputs& from, const std::string& in, const std::string& format) {
    const Path out = from.dir.path / cat(in, "-to-", format);
    convert({.input = from[in].string(), .output = out.string(), .format = format, .force = true});
    return out;
  };
  for (const std::string& from : sym)
    for (const char* to : {"auto_round", "gptq", "gptq_v2", "compressed-tensors", "fake"})
      CHECK(same_files(exported(outputs, from, to), outputs[to]));
  const Outputs asym({"awq", "auto_round"}, {4, 32, false});
  CHECK(same_files(exported(asym, "awq", "auto_round"), asym["auto_round"]));
  CHECK(same_files(exported(asym, "auto_round", "awq"), asym["awq"]));
  CHECK(contains(message_of(ErrorKind::bad_input, [&] { exported(outputs, "fake", "gptq"); }), "keeps no integers"));
  CHECK(contains(message_of(ErrorKind::usage, [&] { exported(outputs, "gptq", "awq"); }), "--format gptq for the symmetric"));
  change_tensor<u32>(outputs["gptq"], "model.layers.0.mlp.up_proj.qweight", 5, 0);
  CHECK(contains(message_of(ErrorKind::verification, [&] { exported(outputs, "gptq", "fake"); }), "other integers"));
}

TEST_CASE("loaders: the rule that decides") {
  const auto verdict = [](const char* engine, const char* format, QuantSpec spec, i64 rows = 256, i64 cols = 256) {
    return of(who_loads(format, {{"model.layers.0.mlp.up_proj", rows, cols, spec, DType::bf16}}), engine);
  };
  CHECK(verdict("vLLM", "gptq", {4, 128, true}).rule == "with Marlin kernels");
  CHECK(verdict("vLLM", "gptq", {2, 128, true}).rule == "not at 2 bits");
  CHECK(verdict("vLLM", "auto_round", {2, 128, true}).loads);
  CHECK(verdict("vLLM", "gptq_v2", {4, 128, false}).rule == "not with an asymmetric grid of 4 bits");
  CHECK(verdict("vLLM", "awq", {4, 128, false}).loads);
  CHECK(verdict("vLLM", "gptq", {4, 128, true}, 96).rule == "model.layers.0.mlp.up_proj has 96 outputs, no multiple of 64");
  CHECK(verdict("vLLM", "gptq", {4, 32, true}, 64, 96).rule == "model.layers.0.mlp.up_proj has 96 inputs, no multiple of 128");
  CHECK(verdict("llama.cpp", "gptq", {4, 128, true}).rule == "does not read gptq");
  CHECK(verdict("transformers", "gptq", {3, 128, true}).loads);
  const QuantSpec w4{4, 128, true}, plain{16, -1, true};
  const std::vector<PlannedLayer> mixed = {{"model.layers.0.mlp.up_proj", 256, 256, w4, DType::bf16},
                                           {"model.layers.0.mlp.gate_proj", 256, 256, plain, DType::bf16}};
  CHECK(of(who_loads("gptq", mixed), "vLLM").rule == "the parts of model.layers.0.mlp.gate_up_proj must be quantized alike");
  CHECK(who_loads("fake", mixed).size() == 5);
}
