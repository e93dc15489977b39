#include "text/vocab.h"

#include "base/error.h"

namespace signround {

void Vocab::add(std::string_view token, i64 id) {
  check(0 <= id && id <= kMaxId, ErrorKind::bad_input, "token \"", token, "\": id ", id, " is not in 0..", kMaxId);
  if (id >= end()) tokens_.resize(static_cast<size_t>(id) + 1);
  const std::string*& slot = tokens_[static_cast<size_t>(id)];
  check(!slot, ErrorKind::bad_input, "tokens \"", slot ? *slot : "", "\" and \"", token, "\" have the same id ", id);
  const auto [it, added] = ids_.emplace(token, static_cast<i32>(id));
  check(added, ErrorKind::bad_input, "token \"", token, "\" is there twice");
  slot = &it->first;
}

std::optional<i32> Vocab::find(std::string_view token) const {
  const auto it = ids_.find(token);
  if (it == ids_.end()) return std::nullopt;
  return it->second;
}

const std::string* Vocab::token(i64 id) const {
  return 0 <= id && id < end() ? tokens_[static_cast<size_t>(id)] : nullptr;
}

}  // namespace signround
