// Tokens <0x00> to <0xFF>, which stand for the bytes of characters that the vocabulary lacks.
#pragma once
#include "text/vocab.h"

namespace signround {

std::vector<i32> byte_fallback_ids(const Vocab& vocab);  // [256], -1 where the vocabulary has no such token

// Appends the ids of the bytes of `text`. False, and nothing appended, if byte_ids is empty or lacks one of them.
bool append_bytes(std::string_view text, const std::vector<i32>& byte_ids, std::vector<i32>& ids);

}  // namespace signround
