// The refusal of a tokenizer that would not be reproduced exactly: a guess would give other tokens than the model was trained
// with.
#pragma once
#include "base/error.h"

namespace signround {

inline constexpr std::string_view kUseIds = " is not supported; give token ids with --ids instead of text";

template <class... Parts>
[[noreturn]] void unsupported(const Parts&... parts) {
  fail(ErrorKind::bad_input, parts..., kUseIds);
}

}  // namespace signround
