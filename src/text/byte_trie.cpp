#include "text/byte_trie.h"

#include <algorithm>

namespace signround {

ByteTrie::ByteTrie(std::vector<std::pair<std::string_view, i32>> keys) {
  std::stable_sort(keys.begin(), keys.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  // Breadth first; of each node made so far, the keys that pass through it and how long they are up to there.
  struct Range {
    size_t begin, end, depth;
  };
  std::vector<Range> ranges = {{0, keys.size(), 0}};
  nodes_.resize(1);
  for (u32 node = 0; node < nodes_.size(); ++node) {
    auto [begin, end, depth] = ranges[node];
    for (; begin < end && keys[begin].first.size() == depth; ++begin) {
      if (nodes_[node].value < 0) nodes_[node].value = keys[begin].second;
    }
    nodes_[node].children = static_cast<u32>(nodes_.size());
    while (begin < end) {
      const char byte = keys[begin].first[depth];
      size_t last = begin;
      while (last < end && keys[last].first[depth] == byte) ++last;
      ++nodes_[node].count;
      nodes_.push_back({0, 0, static_cast<u8>(byte), -1});
      ranges.push_back({begin, last, depth + 1});
      begin = last;
    }
  }
}

u32 ByteTrie::next(u32 node, char byte) const {
  const auto begin = nodes_.begin() + nodes_[node].children, end = begin + nodes_[node].count;
  const auto child = std::lower_bound(begin, end, static_cast<u8>(byte), [](const Node& n, u8 b) { return n.byte < b; });
  return child != end && child->byte == static_cast<u8>(byte) ? static_cast<u32>(child - nodes_.begin()) : kNone;
}

}  // namespace signround
