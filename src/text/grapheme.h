// Characters that are seen as one: Unicode's extended grapheme clusters, as far as the normalizer Precompiled depends on them.
// Flags and conjoined Indic consonants are left apart: they are too long to be looked up as a whole.
#pragma once
#include <cstddef>
#include <string_view>

namespace signround {

// Where the group ends that begins at text[at]. The text must be valid UTF-8 and at < text.size().
size_t grapheme_end(std::string_view text, size_t at);

}  // namespace signround
