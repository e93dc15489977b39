// Tokens and their ids, both ways.
#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/dtype.h"

namespace signround {

struct StringHash {  // lets a map of strings be searched by string_view
  using is_transparent = void;
  size_t operator()(std::string_view s) const { return std::hash<std::string_view>{}(s); }
};
template <class T>
using StringMap = std::unordered_map<std::string, T, StringHash, std::equal_to<>>;

class Vocab {
 public:
  static constexpr i64 kMaxId = (i64{1} << 24) - 1;

  // Error{bad_input}: an id out of 0..kMaxId, a token or an id given twice.
  void add(std::string_view token, i64 id);
  std::optional<i32> find(std::string_view token) const;
  const std::string* token(i64 id) const;  // null: no token has this id
  i64 count() const { return static_cast<i64>(ids_.size()); }
  i64 end() const { return static_cast<i64>(tokens_.size()); }  // largest id + 1

 private:
  StringMap<i32> ids_;
  std::vector<const std::string*> tokens_;  // by id, the keys of ids_; null in gaps
};

}  // namespace signround
