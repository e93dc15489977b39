#include "text/bpe.h"

#include <queue>

#include "text/byte_fallback.h"
#include "text/unicode.h"
#include "text/unsupported.h"

namespace signround {

Bpe::Bpe(const Json& json) {
  if (json.number("dropout", 0.0) != 0.0) unsupported("BPE with dropout (its tokens are random)");
  for (const auto& [token, id] : json.object("vocab")) vocab_.add(token, id.integer());

  prefix_ = json.string("continuing_subword_prefix", "");
  suffix_ = json.string("end_of_word_suffix", "");
  fuse_unknown_ = json.boolean("fuse_unk", false);
  ignore_merges_ = json.boolean("ignore_merges", false);
  const std::string unknown = json.string("unk_token", "");
  if (!unknown.empty()) {
    unknown_ = vocab_.find(unknown);
    check(unknown_.has_value(), ErrorKind::bad_input, "unk_token ", quote(unknown), " is not in the vocabulary");
  }
  if (json.boolean("byte_fallback", false)) byte_ids_ = byte_fallback_ids(vocab_);

  i32 rank = 0;
  for (const Json& merge : json.array("merges")) {
    within(cat("merge ", rank), [&] {
      if (merge.kind() == Json::Kind::string) {  // "left right"
        const std::string_view text = merge.string();
        const size_t space = text.find(' ');
        check(space != text.npos && text.find(' ', space + 1) == text.npos, ErrorKind::bad_input,
              "expected two tokens and one space, found ", quote(text));
        add_merge(text.substr(0, space), text.substr(space + 1), rank);
      } else {  // ["left", "right"]
        check(merge.array().size() == 2, ErrorKind::bad_input, "expected two tokens, found ", merge.array().size());
        add_merge(merge.array()[0].string(), merge.array()[1].string(), rank);
      }
    });
    ++rank;
  }
}

void Bpe::add_merge(std::string_view left, std::string_view right, i32 rank) {
  const auto id_of = [&](std::string_view token) {
    const std::optional<i32> id = vocab_.find(token);
    check(id.has_value(), ErrorKind::bad_input, quote(token), " is not in the vocabulary");
    return *id;
  };
  const u64 pair = static_cast<u64>(id_of(left)) << 32 | static_cast<u32>(id_of(right));
  check(right.size() >= prefix_.size(), ErrorKind::bad_input, quote(right), " is shorter than continuing_subword_prefix");
  merges_[pair] = {rank, id_of(cat(left, right.substr(prefix_.size())))};  // of a pair given twice the later one counts
}

const Bpe::Merge* Bpe::merge_of(i32 left, i32 right) const {
  const auto it = merges_.find(static_cast<u64>(left) << 32 | static_cast<u32>(right));
  return it == merges_.end() ? nullptr : &it->second;
}

std::vector<i32> Bpe::characters(std::string_view piece) const {
  std::vector<i32> ids;
  std::string decorated;
  bool unknown_before = false;  // an unknown token is due, and is put only before the next known one, so that it can be fused
  for (size_t at = 0; at < piece.size();) {
    const size_t begin = at;
    next_code_point(piece, at);
    const std::string_view bare = piece.substr(begin, at - begin);
    std::string_view character = bare;
    const bool continues = begin > 0 && !prefix_.empty(), ends = at == piece.size() && !suffix_.empty();
    if (continues || ends) {
      decorated = cat(continues ? prefix_ : "", bare, ends ? suffix_ : "");
      character = decorated;
    }
    if (const std::optional<i32> id = vocab_.find(character)) {
      if (unknown_before) ids.push_back(*unknown_);
      unknown_before = false;
      ids.push_back(*id);
      continue;
    }
    if (append_bytes(character, byte_ids_, ids)) continue;
    if (unknown_ && unknown_before && !fuse_unknown_) ids.push_back(*unknown_);
    unknown_before = unknown_.has_value();
  }
  if (unknown_before) ids.push_back(*unknown_);
  return ids;
}

void Bpe::tokenize(std::string_view piece, std::vector<i32>& out) const {
  if (ignore_merges_) {
    if (const std::optional<i32> whole = vocab_.find(piece)) {
      out.push_back(*whole);
      return;
    }
  }
  // A linked list of tokens and a heap of the merges that are, or once were, possible. A merge is out of date when its left token
  // is gone, or when it is followed by another one than before; two pairs that spell the same token count as the same merge.
  std::vector<i32> ids = characters(piece);
  const i32 count = static_cast<i32>(ids.size()), none = -1;
  std::vector<i32> previous(ids.size()), next(ids.size());
  for (i32 i = 0; i < count; ++i) {
    previous[i] = i - 1;
    next[i] = i + 1 < count ? i + 1 : none;
  }

  struct Candidate {
    i32 rank, left, id;
    bool operator<(const Candidate& other) const {  // the top of the heap is the largest
      return rank != other.rank ? rank > other.rank : left > other.left;
    }
  };
  std::vector<Candidate> candidates;
  const auto candidate = [&](i32 left) -> std::optional<Candidate> {
    const i32 right = left == none ? none : next[left];
    if (right == none) return std::nullopt;
    const Merge* merge = merge_of(ids[left], ids[right]);
    if (!merge) return std::nullopt;
    return Candidate{merge->rank, left, merge->id};
  };
  for (i32 i = 0; i + 1 < count; ++i) {
    if (const auto c = candidate(i)) candidates.push_back(*c);
  }
  std::priority_queue<Candidate> heap(std::less<Candidate>(), std::move(candidates));
  while (!heap.empty()) {
    const Candidate best = heap.top();
    heap.pop();
    const i32 left = best.left;
    if (ids[left] == none) continue;
    const auto now = candidate(left);
    if (!now || now->id != best.id) continue;
    const i32 right = next[left];
    ids[left] = best.id;
    ids[right] = none;
    next[left] = next[right];
    if (next[left] != none) previous[next[left]] = left;
    if (const auto c = candidate(previous[left])) heap.push(*c);
    if (const auto c = candidate(left)) heap.push(*c);
  }
  for (i32 i = count > 0 ? 0 : none; i != none; i = next[i]) out.push_back(ids[i]);
}

}  // namespace signround
