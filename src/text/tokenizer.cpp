#include "text/tokenizer.h"

#include "text/unicode.h"

namespace signround {

// The ids of the pieces seen before in the same text: words repeat.
class Tokenizer::Cache {
 public:
  explicit Cache(const TokenModel& model) : model_(model) {}

  void append_ids(std::string_view piece, std::vector<i32>& ids) {
    if (piece.size() > kMaxPiece) return model_.tokenize(piece, ids);
    auto known = ranges_.find(piece);
    if (known == ranges_.end()) {
      const size_t first = pool_.size();
      model_.tokenize(piece, pool_);
      known = ranges_.emplace(piece, Range{first, pool_.size() - first}).first;
    }
    const auto first = pool_.begin() + static_cast<std::ptrdiff_t>(known->second.first);
    ids.insert(ids.end(), first, first + static_cast<std::ptrdiff_t>(known->second.count));
  }

 private:
  static constexpr size_t kMaxPiece = 64;  // bytes; longer ones hardly repeat
  struct Range {
    size_t first, count;
  };
  const TokenModel& model_;
  StringMap<Range> ranges_;
  std::vector<i32> pool_;
};

Tokenizer::Tokenizer(std::string_view tokenizer_json, std::string_view tokenizer_config_json) {
  Json root, config;
  within("tokenizer.json", [&] {
    root = parse_json(tokenizer_json);
    model_ = within("model", [&] { return make_token_model(root.at("model")); });
    normalizer_ = make_normalizer(root.find("normalizer"));
    added_ = std::make_unique<AddedTokens>(root.find("added_tokens"), model_->vocab(), normalizer_);
    pre_tokenizer_ = make_pre_tokenizer(root.find("pre_tokenizer"));
    decoder_ = make_decoder(root.find("decoder"));
  });
  if (!tokenizer_config_json.empty()) config = within("tokenizer_config.json", [&] { return parse_json(tokenizer_config_json); });
  special_ = special_ids(root.find("post_processor"), config.is_null() ? nullptr : &config, *added_, model_->vocab());
}

std::vector<i32> Tokenizer::encode(std::string_view text, bool add_special) const {
  check(text.size() < size_t{1} << 30, ErrorKind::bad_input, "a text of ", text.size(), " bytes is too long; split it");
  const i64 invalid = first_invalid_utf8(text);
  check(invalid < 0, ErrorKind::bad_input, "byte ", invalid, " of the text is not UTF-8; convert it to UTF-8 first");
  std::vector<i32> ids;
  if (add_special) ids = special_.before;
  Cache cache(*model_);
  for (const auto& [begin, end, id] : added_->split_raw(text)) {
    if (id) ids.push_back(*id);
    else encode_section(text.substr(begin, end - begin), begin == 0, cache, ids);
  }
  if (add_special) ids.insert(ids.end(), special_.after.begin(), special_.after.end());
  return ids;
}

// Text between two added tokens of the raw text; at_start: it is the first.
void Tokenizer::encode_section(std::string_view text, bool at_start, Cache& cache, std::vector<i32>& ids) const {
  std::string normalized(text);
  if (normalizer_ && normalizer_(normalized)) at_start = false;
  for (const auto& [begin, end, id] : added_->split_normalized(normalized)) {
    if (id) {
      ids.push_back(*id);
      continue;
    }
    Pieces pieces{normalized.substr(begin, end - begin), {{0, end - begin}}, at_start && begin == 0};
    pre_tokenizer_(pieces);
    const std::string_view all = pieces.text;
    for (const auto& [first, last] : pieces.spans) cache.append_ids(all.substr(first, last - first), ids);
  }
}

std::string Tokenizer::decode(std::span<const i32> ids, bool skip_special) const {
  std::vector<std::string> tokens;
  for (const i32 id : ids) {
    const AddedToken* added = added_->find(id);
    if (added && !(skip_special && added->special)) tokens.push_back(added->matched);
    if (added) continue;
    if (const std::string* token = model_->vocab().token(id)) tokens.push_back(*token);
  }
  return decoder_(std::move(tokens));
}

i64 Tokenizer::vocab_size() const { return std::max(model_->vocab().end(), added_->end()); }

std::optional<i32> Tokenizer::find(std::string_view token) const {
  if (const AddedToken* added = added_->find(token)) return added->id;
  return model_->vocab().find(token);
}

}  // namespace signround
