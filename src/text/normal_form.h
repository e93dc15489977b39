// Unicode's normal forms and the other changes of single characters, as the normalizers of the tokenizers library make them.
#pragma once
#include <string>

namespace signround {

enum class NormalForm { nfc, nfd, nfkc, nfkd };

// All of these take and leave valid UTF-8, in time linear in the text but for sorting runs of combining marks.
void to_normal_form(std::string& text, NormalForm form);
void to_lower_case(std::string& text);  // each character by itself
// These remove characters. True: the first one is among them.
bool strip_accents(std::string& text);      // combining marks; those that are part of a letter must be decomposed before
bool clean_white_space(std::string& text);  // "Nmt": control characters go, white space and the like become spaces

}  // namespace signround
