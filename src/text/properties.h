// Properties of characters by the names that regular expressions give them.
#pragma once
#include "text/unicode.h"

namespace signround {

// \p{name}: a general category, short or long ("Lu", "Uppercase_Letter"), or a script ("Han"). Case, spaces, '_' and '-' do not
// count. Empty if there is no such property.
CodeSet code_points_with(std::string_view name);

const CodeSet& regex_word_characters();       // \w in a class
const CodeSet& lone_regex_word_characters();  // \w outside of a class: superscript digits and fractions of Latin-1 too

}  // namespace signround
