#include "text/pattern.h"

#include <algorithm>
#include <map>
#include <string>

#include "text/unsupported.h"

namespace signround {
namespace {

constexpr size_t kMaxSteps = 2000, kMaxStates = 1000;

// A step of the nondeterministic automaton. Where there is a choice, `next` is preferred to `other`.
struct Step {
  enum class Kind : u8 { consume, choose, ahead, match } kind;
  int set, next, other;
  bool at_end = false;
};

class Compiler {
 public:
  std::vector<CodeSet> sets;  // without repetition
  std::vector<Step> steps;

  // Adds the steps for `node` that go on at step `next`; returns where to enter them.
  int emit(const PatternNode& node, int next) {
    switch (node.kind) {
      case PatternNode::Kind::set: return add({Step::Kind::consume, index_of(node.set), next, 0});
      case PatternNode::Kind::ahead: return add({Step::Kind::ahead, index_of(node.set), next, 0, node.at_end});
      case PatternNode::Kind::sequence:
        for (size_t i = node.children.size(); i-- > 0;) next = emit(node.children[i], next);
        return next;
      case PatternNode::Kind::alternatives: {
        int entry = emit(node.children.back(), next);
        for (size_t i = node.children.size() - 1; i-- > 0;) {
          entry = add({Step::Kind::choose, 0, emit(node.children[i], next), entry});
        }
        return entry;
      }
      case PatternNode::Kind::repeat: break;
    }
    const PatternNode& item = node.children[0];
    int entry = next;
    if (node.max == PatternNode::kUnlimited) {
      entry = add({Step::Kind::choose, 0, 0, next});
      const int body = emit(item, entry);
      steps[entry].next = body;
    }
    for (int i = node.min; i < node.max; ++i) entry = add({Step::Kind::choose, 0, emit(item, entry), next});
    for (int i = 0, before = -1; i < node.min && entry != before; ++i) {  // an item without steps is not worth repeating
      before = entry;
      entry = emit(item, entry);
    }
    return entry;
  }

  int add(Step step) {
    if (steps.size() == kMaxSteps) unsupported("a pattern of more than ", kMaxSteps, " steps");
    steps.push_back(step);
    return static_cast<int>(steps.size()) - 1;
  }

 private:
  int index_of(const CodeSet& set) {
    const auto found = std::find(sets.begin(), sets.end(), set);
    if (found != sets.end()) return static_cast<int>(found - sets.begin());
    sets.push_back(set);
    return static_cast<int>(sets.size()) - 1;
  }
};

// Walks the steps from `entries`, given ordered by preference, over a character of class `symbol`, as seen by `in_set` (none: the
// end of the text). Returns the steps after it, in order; accepts: a match ends before the character, and nothing of less
// preference counts.
class Walk {
 public:
  explicit Walk(const std::vector<Step>& steps) : steps_(steps), entered_(steps.size(), 0), reached_(steps.size(), 0) {}

  template <class InSet>
  std::vector<int> operator()(const std::vector<int>& entries, const InSet& in_set, bool at_end, bool& accepts) {
    ++walk_;
    std::vector<int> result, stack(entries.rbegin(), entries.rend());
    accepts = false;
    while (!stack.empty()) {
      const int at = stack.back();
      stack.pop_back();
      if (entered_[at] == walk_) continue;
      entered_[at] = walk_;
      const Step& step = steps_[at];
      switch (step.kind) {
        case Step::Kind::match: accepts = true; return result;
        case Step::Kind::choose: stack.push_back(step.other), stack.push_back(step.next); break;
        case Step::Kind::ahead:
          if (at_end ? step.at_end : in_set(step.set)) stack.push_back(step.next);
          break;
        case Step::Kind::consume:
          if (at_end || !in_set(step.set) || reached_[step.next] == walk_) break;
          reached_[step.next] = walk_;
          result.push_back(step.next);
      }
    }
    return result;
  }

 private:
  const std::vector<Step>& steps_;
  std::vector<u32> entered_, reached_;  // by step: the last walk that did
  u32 walk_ = 0;
};

}  // namespace

Pattern::Pattern(const PatternNode& root, std::string_view source) {
  Compiler compiler;
  const int match = compiler.add({Step::Kind::match, 0, 0, 0});
  const int start = compiler.emit(root, match);
  const std::vector<CodeSet>& sets = compiler.sets;

  // Between two neighbouring bounds of ranges all code points lie in the same sets; the sets they lie in make their class.
  std::vector<char32_t> bounds = {0, kMaxCodePoint + 1};
  for (const CodeSet& set : sets) {
    for (const CodeRange& r : set.ranges()) bounds.push_back(r.first), bounds.push_back(r.last + 1);
  }
  std::sort(bounds.begin(), bounds.end());
  bounds.erase(std::unique(bounds.begin(), bounds.end()), bounds.end());
  std::map<std::string, u8> classes;             // which sets, as '0' and '1' -> class
  std::vector<const std::string*> members;       // the same by class
  std::vector<u8> class_of(kMaxCodePoint + 1);
  for (size_t i = 0; i + 1 < bounds.size(); ++i) {
    std::string in;
    for (const CodeSet& set : sets) in += set.contains(bounds[i]) ? '1' : '0';
    const auto [it, added] = classes.try_emplace(in, static_cast<u8>(classes.size()));
    if (added) members.push_back(&it->first);
    if (members.size() > 256) unsupported("pattern \"", source, "\": telling apart more than 256 classes of characters");
    std::fill(class_of.begin() + bounds[i], class_of.begin() + bounds[i + 1], it->second);
  }
  std::map<std::string_view, u16> known_pages;
  for (size_t page = 0; page <= kMaxCodePoint >> 8; ++page) {
    const u8* content = class_of.data() + (page << 8);
    const auto [it, added] =
        known_pages.try_emplace({reinterpret_cast<const char*>(content), 256}, static_cast<u16>(known_pages.size()));
    if (added) pages_.insert(pages_.end(), content, content + 256);
    page_of_.push_back(it->second);
  }

  width_ = static_cast<u32>(members.size()) + 1;
  std::map<std::vector<int>, u32> numbers = {{{}, 0}, {{start}, 1}};
  std::vector<const std::vector<int>*> states = {&numbers.find({})->first, &numbers.find({start})->first};
  Walk walk(compiler.steps);
  for (size_t s = 0; s < states.size(); ++s) {
    for (u32 symbol = 0; symbol < width_; ++symbol) {
      const bool at_end = symbol == width_ - 1;
      bool accepts = false;
      const auto in_set = [&](int set) { return (*members[symbol])[set] == '1'; };
      std::vector<int> after = walk(*states[s], in_set, at_end, accepts);
      if (s == 1 && accepts) unsupported("pattern \"", source, "\": matching the empty text");
      const auto [it, added] = numbers.try_emplace(std::move(after), static_cast<u32>(numbers.size()));
      if (added) states.push_back(&it->first);
      if (states.size() > kMaxStates) unsupported("pattern \"", source, "\": needing more than ", kMaxStates, " states");
      next_.push_back(it->second << 1 | (accepts ? 1u : 0u));
    }
  }
}

size_t Pattern::match_end(std::string_view text, size_t from) const {
  size_t end = 0, at = from;
  u32 state = 1;
  while (at < text.size()) {
    const size_t before = at;
    const u8 byte = static_cast<u8>(text[at]);
    const u32 symbol = byte < 0x80 ? (++at, pages_[byte]) : class_of(next_code_point(text, at));
    const u32 step = next_[state * width_ + symbol];
    if (step & 1) end = before;
    state = step >> 1;
    if (state == 0) return end;
  }
  return next_[state * width_ + width_ - 1] & 1 ? text.size() : end;
}

std::optional<Pattern::Match> Pattern::find(std::string_view text, size_t from) const {
  for (size_t at = from; at < text.size(); next_code_point(text, at)) {
    const size_t end = match_end(text, at);
    if (end > at) return Match{at, end};
  }
  return std::nullopt;
}

}  // namespace signround
