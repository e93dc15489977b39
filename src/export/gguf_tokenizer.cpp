#include "export/gguf_tokenizer.h"

#include <algorithm>
#include <map>
#include <set>

namespace signround {
namespace {

enum TokenType : i32 { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };

// llama.cpp knows pre-tokenizers by name; the expression in the file tells which of them it is.
struct PreTokenizer {
  std::string_view name, expression;
  bool whole = false;  // a piece that is a token becomes that, whatever the merges (ignore_merges)
};
constexpr PreTokenizer kPreTokenizers[] = {
    {"llama-bpe",
     R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
     true},
    {"dbrx",
     R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"},
    {"qwen2",
     R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"},
};

bool is(const Json& part, std::string_view type) { return part.kind() == Json::Kind::object && part.string("type", "") == type; }

[[noreturn]] void unknown(std::string_view what) {
  fail(ErrorKind::usage, "tokenizer.json: llama.cpp has no name for ", what, "; the nearest is --format auto_round");
}

// A byte-level pre-tokenizer by its own expression (GPT-2's), or behind a Split with another.
std::string pre_tokenizer(const Json& json, bool whole) {
  const auto plain = [](const Json& by_bytes) { return !by_bytes.boolean("add_prefix_space", true); };
  if (is(json, "ByteLevel") && json.boolean("use_regex", true) && plain(json) && !whole) return "gpt-2";
  if (!is(json, "Sequence")) unknown("this pre_tokenizer");
  const Json::Array& parts = json.array("pretokenizers");
  if (parts.size() != 2 || !is(parts[1], "ByteLevel") || !plain(parts[1])) unknown("this pre_tokenizer");
  const bool by_bytes = parts[1].boolean("use_regex", true);
  if (is(parts[0], "Digits") && parts[0].boolean("individual_digits", false) && by_bytes && !whole) return "smollm";
  if (is(parts[0], "Split") && !by_bytes)
    if (const Json* expression = parts[0].at("pattern").find("Regex"))
      for (const PreTokenizer& known : kPreTokenizers)
        if (expression->string() == known.expression && whole == known.whole) return std::string(known.name);
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

constexpr std::string_view kSpace = "\u2581";

// SentencePiece's handling of spaces as tokenizer.json spells it, older and newer: each becomes U+2581. Returns whether one is
// put before the text.
bool spm_space_prefix(const Json& tokenizer) {
  const auto part = [&](const char* key) -> const Json& {
    static const Json kNone;
    const Json* found = tokenizer.find(key);
    return found ? *found : kNone;
  };
  const auto replaces = [](const Json& json) {
    if (!is(json, "Replace")) return false;
    const Json* from = json.at("pattern").find("String");
    return from && from->string() == " " && json.string("content") == kSpace;
  };
  const Json &normalizer = part("normalizer"), &pieces = part("pre_tokenizer");
  if (normalizer.is_null() && is(pieces, "Metaspace") && pieces.string("replacement") == kSpace && !pieces.boolean("split", true))
    return pieces.string("prepend_scheme", "always") != "never";
  // A Split at spaces finds none: they are replaced before.
  const bool whole = pieces.is_null() || (is(pieces, "Split") && pieces.at("pattern").string("String", "") == " ");
  if (whole && replaces(normalizer)) return false;
  if (whole && is(normalizer, "Sequence")) {
    const Json::Array& steps = normalizer.array("normalizers");
    if (steps.size() == 2 && is(steps[0], "Prepend") && steps[0].string("prepend") == kSpace && replaces(steps[1])) return true;
  }
  unknown("these normalizer and pre_tokenizer");
}

// SPM knows no merges: it joins the pair whose token has the highest score. A list of merges says the same if it has every pair
// that makes a token, and all pairs of a token one after another. Byte tokens and those beside the model are joined by nobody.
void require_spm_merges(const std::map<std::string, std::size_t>& ids, const std::vector<i32>& types,
                        const std::vector<std::pair<std::string, std::string>>& merges) {
  std::set<std::pair<std::string_view, std::string_view>> pairs;
  std::set<std::string> made;
  std::string last;
  for (const auto& [left, right] : merges) {
    pairs.emplace(left, right);
    const std::string token = left + right;
    if (token != last && types[ids.at(token)] == kNormal && !made.insert(token).second)
      unknown("merges that make " + quote(token) + " at two places of the list");
    last = token;
  }
  for (const auto& [token, id] : ids)
    for (std::size_t cut = 1; types[id] == kNormal && cut < token.size(); ++cut) {
      const auto left = ids.find(token.substr(0, cut)), right = ids.find(token.substr(cut));
      if (left == ids.end() || right == ids.end() || types[left->second] != kNormal || types[right->second] != kNormal) continue;
      if (!pairs.contains({left->first, right->first}))
        unknown(cat("a vocabulary whose ", quote(left->first), " and ", quote(right->first), " do not merge to ", quote(token)));
    }
}

GgufValues values_of(const Path& model, const Json& tokenizer, const Json& settings, const Json& config, i64 vocab) {
  const Json& bpe = tokenizer.at("model");
  if (!is(bpe, "BPE")) unknown("the model " + bpe.string("type", "without a type"));
  const bool spm = bpe.boolean("byte_fallback", false);
  GgufValues values = {{"tokenizer.ggml.model", std::string(spm ? "llama" : "gpt2")}};
  const bool whole = bpe.boolean("ignore_merges", false);
  if (spm && whole) unknown("ignore_merges");
  values.emplace_back("tokenizer.ggml.pre", spm ? std::string("default") : pre_tokenizer(tokenizer.at("pre_tokenizer"), whole));
  if (spm) values.emplace_back("tokenizer.ggml.add_space_prefix", spm_space_prefix(tokenizer));
  if (const Json* normalizer = tokenizer.find("normalizer");
      !spm && normalizer && !normalizer->is_null() && !is(*normalizer, "NFC"))
    unknown("this normalizer");

  std::vector<std::string> tokens(static_cast<std::size_t>(vocab));
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
    // llama.cpp looks for these in the text as it is, before spaces are replaced.
    for (std::size_t at = 0; spm && types[id] == kUserDefined && (at = tokens[id].find(kSpace, at)) != std::string::npos; ++at)
      tokens[id].replace(at, kSpace.size(), " ");
  }
  // SPM joins the pair whose token has the highest score: the earliest merge that makes it.
  std::vector<std::pair<std::string, std::string>> merges;
  for (const Json& merge : bpe.array("merges")) {
    auto [left, right] = parts_of(merge);
    const auto made = ids.find(left + right);
    check(made != ids.end(), ErrorKind::bad_input, "merges: ", quote(left + right), " is no token");
    if (scores[made->second] < -9e5f) scores[made->second] = -static_cast<float>(merges.size());
    merges.emplace_back(std::move(left), std::move(right));
  }
  if (spm) require_spm_merges(ids, types, merges);
  values.emplace_back("tokenizer.ggml.tokens", std::move(tokens));
  values.emplace_back("tokenizer.ggml.token_type", std::move(types));
  if (spm) {
    values.emplace_back("tokenizer.ggml.scores", std::move(scores));
    if (const auto found = ids.find(unk); found != ids.end())
      values.emplace_back("tokenizer.ggml.unknown_token_id", static_cast<u32>(found->second));
  } else {
    std::vector<std::string> joined;
    for (const auto& [left, right] : merges) joined.push_back(left + " " + right);
    values.emplace_back("tokenizer.ggml.merges", std::move(joined));
  }
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
