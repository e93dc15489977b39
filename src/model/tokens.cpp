#include "model/tokens.h"

#include "io/file.h"
#include "text/builtin.h"

namespace signround {

namespace {
constexpr u64 kMaxTokenizer = u64{256} << 20, kMaxText = u64{8} << 30;
}

namespace {

// Other files that hold a tokenizer; none of them says all that tokenizer.json does.
[[noreturn]] void refuse_without_tokenizer(const Path& folder) {
  std::string found = "no tokenizer.json";
  for (const auto& [file, what] : {std::pair("tokenizer.model", "SentencePiece"), std::pair("spiece.model", "SentencePiece"),
                                   std::pair("vocab.json", "vocabulary and merges"), std::pair("tekken.json", "Tekken")})
    if (path_exists(folder / file)) found = cat("no tokenizer.json, only ", file, " (", what, ")");
  fail(ErrorKind::bad_input, folder.string(), ": has ", found,
       "; give token ids with --ids, or let transformers write tokenizer.json: AutoTokenizer.from_pretrained(..) and "
       "save_pretrained(..)");
}

}  // namespace

Tokenizer read_tokenizer(const std::string& directory) {
  const Path folder(directory), config = folder / "tokenizer_config.json";
  if (!path_exists(folder / "tokenizer.json")) refuse_without_tokenizer(folder);
  const std::string text = read_file(folder / "tokenizer.json", kMaxTokenizer);
  const std::string settings = std::filesystem::exists(config) ? read_file(config, kMaxTokenizer) : std::string();
  return within((folder / "tokenizer.json").string(), [&] { return Tokenizer(text, settings); });
}

std::vector<i32> read_tokens(const std::string& directory, const Config& config, const std::string& text,
                             const std::string& ids) {
  if (ids.empty()) {
    const Tokenizer tokenizer = read_tokenizer(directory);
    const std::string content = read_file(text, kMaxText);
    std::vector<i32> tokens = within(text, [&] { return tokenizer.encode(content, false); });
    check_ids(tokens, config.vocab);
    return tokens;
  }
  const std::string content = read_file(ids, kMaxText);
  return within(ids, [&] { return parse_ids(content, config.vocab); });
}

std::vector<std::vector<i32>> read_calibration(const std::string& directory, const Config& config, const std::string& dataset,
                                               const std::string& ids, const WindowOptions& windows) {
  if (!ids.empty()) return cut_windows(read_tokens(directory, config, {}, ids), {}, windows);
  const Tokenizer tokenizer = read_tokenizer(directory);
  const bool builtin = dataset == "builtin";
  const std::string content = builtin ? std::string(builtin_calibration_text()) : read_file(dataset, kMaxText);
  return within(builtin ? "the built-in calibration text" : dataset, [&] {
    const std::vector<i32> tokens = dataset_ids(content, builtin ? DatasetKind::text : dataset_kind(dataset), tokenizer);
    check_ids(tokens, config.vocab);
    return cut_windows(tokens, tokenizer.special(), windows);
  });
}

void check_ids(const std::vector<i32>& ids, i64 vocab) {
  for (size_t i = 0; i < ids.size(); ++i)
    check(ids[i] >= 0 && ids[i] < vocab, ErrorKind::bad_input, "token ", i, " is ", ids[i], ", beyond the model's vocabulary of ",
          vocab, ": tokenizer and model do not belong together");
}

}  // namespace signround
