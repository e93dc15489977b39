// Keys by their bytes: finds all keys that a text begins with in one walk.
#pragma once
#include <string_view>
#include <utility>
#include <vector>

#include "base/dtype.h"

namespace signround {

class ByteTrie {
 public:
  static constexpr u32 kRoot = 0, kNone = 0xFFFFFFFF;

  ByteTrie() : nodes_(1) {}
  // Keys with values >= 0; of a key given twice the first counts. An empty key is never found by walking.
  explicit ByteTrie(std::vector<std::pair<std::string_view, i32>> keys);

  bool empty() const { return nodes_.size() == 1; }
  u32 next(u32 node, char byte) const;                        // kNone: no key goes on with this byte
  i32 value(u32 node) const { return nodes_[node].value; }  // of the key that ends here, or -1

 private:
  // The children of a node are neighbours, in the order of their bytes.
  struct Node {
    u32 children = 0;
    u16 count = 0;
    u8 byte = 0;
    i32 value = -1;
  };
  std::vector<Node> nodes_;
};

}  // namespace signround
