#include "text/unigram.h"

#include <algorithm>
#include <cstdlib>
#include <limits>

#include "text/byte_fallback.h"
#include "text/unicode.h"

namespace signround {

constexpr double kUnknownPenalty = 10;  // below the lowest score of all tokens, as in SentencePiece

// Of the paths from the start of the piece to one of its bytes, the last token of the best one.
struct Unigram::Best {
  static constexpr size_t kNowhere = static_cast<size_t>(-1);

  double score = 0;
  size_t begin = kNowhere;
  bool unknown = false;

  void offer(double candidate, size_t from, bool is_unknown) {  // of equals the first counts
    if (begin == kNowhere || candidate > score) *this = {candidate, from, is_unknown};
  }
};

namespace {

constexpr i64 kMaxPower = 308;

double power_of_ten(i64 exponent) { return std::strtod(cat("1e", exponent).c_str(), nullptr); }  // the nearest double

// A score as the tokenizers library reads it: the digits that fit into 64 bits, times or over a power of ten, so that it may be a
// neighbour of the nearest double. That decides between paths of the same tokens in another order.
double read_score(const Json& json) {
  json.number();  // Error{bad_input} if it is none
  const std::string text = to_text(json);
  u64 digits = 0;
  i64 exponent = 0;
  bool full = false;
  const size_t end = std::min(text.find_first_of("eE"), text.size()), point = std::min(text.find('.'), end);
  for (size_t i = text[0] == '-'; i < end; ++i) {
    if (i == point) continue;
    const u64 digit = static_cast<u64>(text[i] - '0');
    full = full || digits > (~u64{0} - digit) / 10;
    if (!full) digits = digits * 10 + digit;
    exponent += (full ? 1 : 0) - (i > point ? 1 : 0);
  }
  constexpr long kFar = 1L << 40;  // beyond what digits can make up for
  if (end < text.size()) exponent += std::clamp(std::strtol(text.c_str() + end + 1, nullptr, 10), -kFar, kFar);
  double value = static_cast<double>(digits);
  for (; value != 0 && exponent < -kMaxPower; exponent += kMaxPower) value /= power_of_ten(kMaxPower);
  if (value == 0) return 0;
  value = exponent < 0 ? value / power_of_ten(-exponent) : value * power_of_ten(exponent);
  return text[0] == '-' ? -value : value;
}

}  // namespace

Unigram::Unigram(const Json& json) {
  double lowest = std::numeric_limits<double>::infinity();
  for (const Json& entry : json.array("vocab")) {
    const Json::Array& pair = entry.array();
    check(pair.size() == 2, ErrorKind::bad_input, "vocab: expected a token and its score, found ", pair.size(), " values");
    vocab_.add(pair[0].string(), vocab_.end());
    scores_.push_back(read_score(pair[1]));
    lowest = std::min(lowest, scores_.back());
  }
  unknown_score_ = lowest - kUnknownPenalty;
  if (const Json* unknown = json.find("unk_id"); unknown && !unknown->is_null()) {
    const i64 id = unknown->integer();
    check(0 <= id && id < vocab_.end(), ErrorKind::bad_input, "unk_id ", id, " is not in the vocabulary");
    unknown_ = static_cast<i32>(id);
  }
  std::vector<std::pair<std::string_view, i32>> keys;
  for (i32 id = 0; id < vocab_.end(); ++id) keys.emplace_back(*vocab_.token(id), id);
  trie_ = ByteTrie(std::move(keys));
  if (json.boolean("byte_fallback", false)) byte_ids_ = byte_fallback_ids(vocab_);
}

std::vector<Unigram::Best> Unigram::best_paths(std::string_view piece) const {
  std::vector<Best> best(piece.size() + 1);  // by the byte where a path ends
  for (size_t begin = 0, next = 0; begin < piece.size(); begin = next) {
    next_code_point(piece, next);
    const double score = best[begin].score;
    bool known = false;  // the single character is a token
    u32 node = ByteTrie::kRoot;
    for (size_t end = begin; end < piece.size();) {
      node = trie_.next(node, piece[end++]);
      if (node == ByteTrie::kNone) break;
      const i32 id = trie_.value(node);
      if (id < 0) continue;
      best[end].offer(score + scores_[id], begin, id == unknown_);
      known = known || end == next;
    }
    if (known) continue;
    check(unknown_.has_value(), ErrorKind::bad_input, "the tokenizer has no token for ", quote(piece.substr(begin, next - begin)),
          " and no unk_id");
    best[next].offer(score + unknown_score_, begin, true);
  }
  return best;
}

void Unigram::tokenize(std::string_view piece, std::vector<i32>& ids) const {
  const std::vector<Best> best = best_paths(piece);
  std::vector<std::string_view> tokens;  // the last one first; neighbouring unknown ones are one
  bool unknown_after = false;
  for (size_t end = piece.size(); end > 0; end = best[end].begin) {
    const Best& last = best[end];
    const size_t more = last.unknown && unknown_after ? tokens.back().size() : 0;
    if (more) tokens.pop_back();
    tokens.push_back(piece.substr(last.begin, end - last.begin + more));
    unknown_after = last.unknown;
  }
  for (size_t i = tokens.size(); i-- > 0;) append(tokens[i], ids);
}

// Unknown characters put together may spell a token.
void Unigram::append(std::string_view token, std::vector<i32>& ids) const {
  if (const std::optional<i32> id = vocab_.find(token)) ids.push_back(*id);
  else if (!append_bytes(token, byte_ids_, ids)) ids.push_back(*unknown_);
}

}  // namespace signround
