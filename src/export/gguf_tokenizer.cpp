#include "export/gguf_tokenizer.h"

#include <algorithm>

namespace signround {
namespace {

enum TokenType : i32 { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };

// llama.cpp knows pre-tokenizers by name; the expression in the file tells which of them it is.
struct PreTokenizer {
  std::string_view name, expression;
};
constexpr PreTokenizer kPreTokenizers[] = {
    {"llama-bpe",
     R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"},
    {"qwen2",
     R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"},
};

bool is(const Json& part, std::string_view type) { return part.kind() == Json::Kind::object && part.string("type", "") == type; }

[[noreturn]] void unknown(std::string_view what) {
  fail(ErrorKind::usage, "tokenizer.json: llama.cpp has no name for ", what, "; the nearest is --format auto_round");
}

// A byte-level pre-tokenizer by its own expression (GPT-2's), or behind a Split with another.
std::string pre_tokenizer(const Json& json) {
  if (is(json, "ByteLevel") && json.boolean("use_regex", true)) return "gpt-2";
  if (!is(json, "Sequence")) unknown("this pre_tokenizer");
  const Json::Array& parts = json.array("pretokenizers");
  if (parts.size() != 2 || !is(parts[1], "ByteLevel")) unknown("this pre_tokenizer");
  const bool by_bytes = parts[1].boolean("use_regex", true);
  if (is(parts[0], "Digits") && parts[0].boolean("individual_digits", false) && by_bytes) return "smollm";
  if (is(parts[0], "Split") && !by_bytes)
    if (const Json* expression = parts[0].at("pattern").find("Regex"))
      for (const PreTokenizer& known : kPreTokenizers)
        if (expression->string() == known.expression) return std::string(known.name);
  unknown("this pre_tokenizer");
}

bool is_byte(const std::string& token) { return token.size() == 6 && token.starts_with("<0x") && token.back() == '>'; }

// Left and right of a merge: a pair, or a string with a space between.
std::pair<std::string, std::string> parts_of(const Json& merge) {
  if (merge.kind() == Json::Kind::array) {
    check(merge.array().size() == 2, ErrorKind::bad_input, "merges: an entry is no pair");
    return {merge.array()[0].string(), merge.array()[1].string()};
  }
  const std::string& text = merge.string();
  const std::size_t space = text.find(' ', 1);
  check(space != std::string::npos, ErrorKind::bad_input, "merges: ", quote(text), " is no pair");
  return {text.substr(0, space), text.substr(space + 1)};
}

std::optional<u32> id_of(const Json& config, const char* key) {
  const Json* id = config.find(key);
  if (id && id->kind() == Json::Kind::array && !id->array().empty()) id = &id->array()[0];  // several ends: the first
  if (!id || id->kind() != Json::Kind::number || id->integer() < 0) return std::nullopt;
  return static_cast<u32>(id->integer());
}

// Whether text begins with a token that is none of its own: as tokenizer_config.json says, else the template around it.
bool adds_bos(const Json& tokenizer, const Json& settings) {
  if (const Json* said = settings.find("add_bos_token"); said && said->kind() == Json::Kind::boolean) return said->boolean();
  const Json* post = tokenizer.find("post_processor");
  std::vector<const Json*> parts;
  if (post && is(*post, "Sequence"))
    for (const Json& part : post->array("processors")) parts.push_back(&part);
  else if (post)
    parts.push_back(post);
  for (const Json* part : parts)
    if (is(*part, "TemplateProcessing") && !part->array("single").empty() && part->array("single")[0].find("SpecialToken"))
      return true;
  return false;
}

std::string chat_template(const Path& model, const Json& settings) {
  if (path_exists(model / "chat_template.jinja")) return read_file(model / "chat_template.jinja", u64{1} << 24);
  const Json* text = settings.find("chat_template");
  return text && text->kind() == Json::Kind::string ? text->string() : "";
}

GgufValues values_of(const Path& model, const Json& tokenizer, const Json& settings, const Json& config, i64 vocab) {
  const Json& bpe = tokenizer.at("model");
  if (!is(bpe, "BPE")) unknown("the model " + bpe.string("type", "without a type"));
  const bool spm = bpe.boolean("byte_fallback", false);
  GgufValues values = {{"tokenizer.ggml.model", std::string(spm ? "llama" : "gpt2")}};
  if (spm)
    values.emplace_back("tokenizer.ggml.pre", std::string("default"));
  else
    values.emplace_back("tokenizer.ggml.pre", pre_tokenizer(tokenizer.at("pre_tokenizer")));
  if (const Json* normalizer = tokenizer.find("normalizer");
      !spm && normalizer && !normalizer->is_null() && !is(*normalizer, "NFC"))
    unknown("this normalizer");

  std::vector<std::string> tokens(static_cast<std::size_t>(vocab)), merges;
  std::vector<i32> types(tokens.size(), kUnused);
  std::vector<float> scores(tokens.size(), -1e6f);
  const auto at = [&](i64 id, const std::string& token) {
    check(id >= 0 && id < vocab, ErrorKind::bad_input, "token ", quote(token), ": id ", id, " is beyond the vocabulary of ",
          vocab);
    return static_cast<std::size_t>(id);
  };
  for (std::size_t i = 0; i < tokens.size(); ++i) tokens[i] = cat("[PAD", i, "]");
  std::map<std::string, std::size_t> ids;
  const std::string unk = bpe.string("unk_token", "");
  for (const JsonMember& member : bpe.object("vocab")) {
    const std::size_t id = at(member.value.integer(), member.key);
    ids[member.key] = id;
    tokens[id] = member.key;
    types[id] = spm && is_byte(member.key) ? kByte : spm && member.key == unk ? kUnknown : kNormal;
  }
  for (const Json& added : tokenizer.array("added_tokens")) {
    const std::size_t id = at(added.integer("id"), added.string("content"));
    tokens[id] = added.string("content");
    if (types[id] != kUnknown) types[id] = added.boolean("special", false) ? kControl : kUserDefined;
  }
  // SPM joins the pair whose token has the highest score: the earliest merge that makes it.
  for (const Json& merge : bpe.array("merges")) {
    const auto [left, right] = parts_of(merge);
    if (const auto made = ids.find(left + right); made != ids.end() && scores[made->second] < -9e5f)
      scores[made->second] = -static_cast<float>(merges.size());
    merges.push_back(left + " " + right);
  }
  values.emplace_back("tokenizer.ggml.tokens", std::move(tokens));
  values.emplace_back("tokenizer.ggml.token_type", std::move(types));
  if (spm)
    values.emplace_back("tokenizer.ggml.scores", std::move(scores));
  else
    values.emplace_back("tokenizer.ggml.merges", std::move(merges));
  if (const std::optional<u32> id = id_of(config, "bos_token_id")) values.emplace_back("tokenizer.ggml.bos_token_id", *id);
  if (const std::optional<u32> id = id_of(config, "eos_token_id")) values.emplace_back("tokenizer.ggml.eos_token_id", *id);
  if (const std::optional<u32> id = id_of(config, "pad_token_id")) values.emplace_back("tokenizer.ggml.padding_token_id", *id);
  values.emplace_back("tokenizer.ggml.add_bos_token", adds_bos(tokenizer, settings));
  if (const std::string text = chat_template(model, settings); !text.empty())
    values.emplace_back("tokenizer.chat_template", text);
  return values;
}

}  // namespace

GgufValues gguf_tokenizer(const Path& model, const Json& config, i64 vocab) {
  const Path path = model / "tokenizer.json", settings = model / "tokenizer_config.json";
  check(path_exists(path), ErrorKind::bad_input, path.string(), ": is missing; format gguf holds the tokenizer");
  const Json tokenizer = read_json(path);
  const Json more = path_exists(settings) ? read_json(settings) : Json::object({});
  return within(model.string(), [&] { return values_of(model, tokenizer, more, config, vocab); });
}

}  // namespace signround
