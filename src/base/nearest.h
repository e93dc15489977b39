// For messages about mistyped words: which of the known ones was meant.
#pragma once
#include <algorithm>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace signround {

// Insertions, deletions, replacements and swaps of neighbours that turn a into b.
inline std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> older(b.size() + 1), last(b.size() + 1), row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    older.swap(last);
    last.swap(row);
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, last[j - 1] + (a[i - 1] != b[j - 1])});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) row[j] = std::min(row[j], older[j - 2] + 1);
    }
  }
  return row[b.size()];
}

// The word of the smallest distance, the first of equals; empty if there are no words.
inline std::string_view nearest(std::string_view typed, std::span<const std::string_view> words) {
  typed = typed.substr(0, 256);  // longer ones are nobody's slip of the finger
  const auto closer = [&](std::string_view a, std::string_view b) { return edit_distance(typed, a) < edit_distance(typed, b); };
  const auto found = std::min_element(words.begin(), words.end(), closer);
  return found == words.end() ? std::string_view() : *found;
}

}  // namespace signround
