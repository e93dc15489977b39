#include "text/added_tokens.h"

#include <algorithm>

#include "text/unicode.h"

namespace signround {

AddedTokens::AddedTokens(const Json* json, const Vocab& vocab, const Normalizer& normalizer) {
  i32 next_id = static_cast<i32>(vocab.count());
  if (json && !json->is_null()) {
    for (const Json& entry : json->array()) {
      AddedToken token;
      token.content = entry.string("content");
      token.single_word = entry.boolean("single_word");
      token.lstrip = entry.boolean("lstrip");
      token.rstrip = entry.boolean("rstrip");
      token.normalized = entry.boolean("normalized");
      token.special = entry.boolean("special");
      if (token.content.empty()) continue;
      const auto [place, added] = by_content_.try_emplace(token.content, tokens_.size());
      if (added) {
        token.id = vocab.find(token.content).value_or(next_id);
        next_id = std::max(next_id, token.id + 1);
        by_id_[token.id] = tokens_.size();
        tokens_.push_back(std::move(token));
      } else {  // given twice: the later flags count
        token.id = tokens_[place->second].id;
        tokens_[place->second] = std::move(token);
      }
    }
  }
  std::vector<std::pair<std::string_view, i32>> raw, normalized;
  for (size_t i = 0; i < tokens_.size(); ++i) {
    AddedToken& token = tokens_[i];
    token.matched = token.content;
    if (token.normalized && normalizer) normalizer(token.matched);
    // Of two that are the same once normalized the first counts.
    if (!token.matched.empty()) (token.normalized ? normalized : raw).emplace_back(token.matched, static_cast<i32>(i));
  }
  raw_ = ByteTrie(std::move(raw));
  normalized_ = ByteTrie(std::move(normalized));
}

// The longest token that begins at text[at]; `end` is where it ends. -1: none.
i32 AddedTokens::longest_at(const ByteTrie& trie, std::string_view text, size_t at, size_t& end) {
  i32 longest = -1;
  u32 node = ByteTrie::kRoot;
  while (at < text.size() && (node = trie.next(node, text[at++])) != ByteTrie::kNone) {
    if (trie.value(node) >= 0) longest = trie.value(node), end = at;
  }
  return longest;
}

std::vector<AddedTokens::Section> AddedTokens::split(const ByteTrie& trie, std::string_view text) const {
  std::vector<Section> sections;
  size_t done = 0;
  size_t space_end = 0;  // how far rstrip has looked: tokens that are themselves white space need not look again
  const auto put_text = [&](size_t end) {
    if (done < end) sections.push_back({done, end, std::nullopt});
  };
  for (size_t at = 0; at < text.size() && !trie.empty();) {
    size_t end = 0;
    const i32 found = longest_at(trie, text, at, end);
    if (found < 0) {
      ++at;
      continue;
    }
    const AddedToken& token = tokens_[found];
    size_t begin = at;
    at = end;  // a token that is refused, or takes white space with it, does not change where the next one is looked for
    if (token.single_word) {
      size_t left = begin, right = end;
      const bool word_before = left > 0 && word_characters().contains(previous_code_point(text, left));
      const bool word_after = right < text.size() && word_characters().contains(next_code_point(text, right));
      if (word_before || word_after) continue;
    }
    if (token.lstrip) {
      for (size_t left = begin; left > done && white_space().contains(previous_code_point(text, left));) begin = left;
    }
    if (token.rstrip) {
      for (size_t right = end = std::max(end, space_end); right < text.size();) {
        if (!white_space().contains(next_code_point(text, right))) break;
        end = right;
      }
      space_end = end;
    }
    put_text(begin);
    sections.push_back({begin, end, token.id});
    done = end;
  }
  put_text(text.size());
  return sections;
}

const AddedToken* AddedTokens::find(std::string_view content) const {
  const auto it = by_content_.find(content);
  return it == by_content_.end() ? nullptr : &tokens_[it->second];
}

const AddedToken* AddedTokens::find(i32 id) const {
  const auto it = by_id_.find(id);
  return it == by_id_.end() ? nullptr : &tokens_[it->second];
}

i64 AddedTokens::end() const {
  i64 end = 0;
  for (const AddedToken& token : tokens_) end = std::max<i64>(end, token.id + 1);
  return end;
}

}  // namespace signround
