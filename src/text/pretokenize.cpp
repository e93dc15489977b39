#include "text/pretokenize.h"

#include <algorithm>
#include <memory>

#include "text/byte_level.h"
#include "text/metaspace.h"
#include "text/pattern.h"
#include "text/unicode.h"
#include "text/unsupported.h"

namespace signround {
namespace {

// The pattern that byte-level BPE has built in: GPT-2's.
constexpr std::string_view kByteLevelPattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

enum class Behavior { removed, isolated, merged_with_previous, merged_with_next, contiguous };

Behavior behavior_named(std::string_view name) {
  if (name == "Removed") return Behavior::removed;
  if (name == "Isolated") return Behavior::isolated;
  if (name == "MergedWithPrevious") return Behavior::merged_with_previous;
  if (name == "MergedWithNext") return Behavior::merged_with_next;
  if (name == "Contiguous") return Behavior::contiguous;
  fail(ErrorKind::bad_input, "unknown behavior ", quote(name));
}

struct Cut {
  size_t begin, end;
  bool separator;
};

// One piece, already cut into separators and what lies between them, as the pieces that the behavior makes of it.
void append_pieces(const std::vector<Cut>& cuts, Behavior behavior, std::vector<Pieces::Span>& out) {
  const size_t first = out.size();
  const bool backwards = behavior == Behavior::merged_with_next;
  bool before = false;  // the cut before is a separator
  for (size_t i = 0; i < cuts.size(); ++i) {
    const Cut& cut = cuts[backwards ? cuts.size() - 1 - i : i];
    bool join = false;
    switch (behavior) {
      case Behavior::removed:
      case Behavior::isolated: break;
      case Behavior::contiguous: join = cut.separator == before; break;
      case Behavior::merged_with_previous:
      case Behavior::merged_with_next: join = cut.separator && !before; break;
    }
    if (behavior == Behavior::removed && cut.separator) {
    } else if (join && out.size() > first) {
      out.back() = {std::min(out.back().begin, cut.begin), std::max(out.back().end, cut.end)};
    } else {
      out.push_back({cut.begin, cut.end});
    }
    before = cut.separator;
  }
  if (backwards) std::reverse(out.begin() + static_cast<std::ptrdiff_t>(first), out.end());
}

void split(Pieces& pieces, const Pattern& pattern, Behavior behavior, bool invert) {
  std::vector<Pieces::Span> out;
  std::vector<Cut> cuts;
  for (const auto& [begin, end] : pieces.spans) {
    const std::string_view text = std::string_view(pieces.text).substr(0, end);
    cuts.clear();
    size_t at = begin;
    while (const auto match = pattern.find(text, at)) {
      if (match->begin > at) cuts.push_back({at, match->begin, invert});
      cuts.push_back({match->begin, match->end, !invert});
      at = match->end;
    }
    if (at < end) cuts.push_back({at, end, invert});
    append_pieces(cuts, behavior, out);
  }
  const bool same_start = !out.empty() && !pieces.spans.empty() && out[0].begin == pieces.spans[0].begin;
  pieces.at_start = pieces.at_start && same_start;
  pieces.spans = std::move(out);
}

PreTokenizer splitter(Pattern pattern, Behavior behavior, bool invert = false) {
  return [pattern = std::move(pattern), behavior, invert](Pieces& pieces) { split(pieces, pattern, behavior, invert); };
}

// Rebuilds the text from its pieces, each as `append` writes it.
template <class Append>
void rewrite(Pieces& pieces, Append&& append) {
  std::string text;
  text.reserve(pieces.text.size() + pieces.text.size() / 4);
  for (auto& [begin, end] : pieces.spans) {
    const size_t start = text.size();
    append(text, std::string_view(pieces.text).substr(begin, end - begin));
    begin = start, end = text.size();
  }
  pieces.text = std::move(text);
}

PreTokenizer byte_level(const Json& json) {
  const bool add_prefix_space = json.boolean("add_prefix_space"), use_regex = json.boolean("use_regex", true);
  const PreTokenizer cut = use_regex ? splitter(Pattern::regex(kByteLevelPattern), Behavior::isolated) : PreTokenizer();
  return [=](Pieces& pieces) {
    if (add_prefix_space) {
      rewrite(pieces, [](std::string& text, std::string_view piece) {
        if (piece[0] != ' ') text += ' ';
        text += piece;
      });
    }
    if (cut) cut(pieces);
    rewrite(pieces, [](std::string& text, std::string_view piece) {
      for (const char byte : piece) append_byte_symbol(text, static_cast<u8>(byte));
    });
  };
}

PreTokenizer metaspace(const Json& json) {
  const Metaspace m = read_metaspace(json);
  const PreTokenizer cut = m.split ? splitter(Pattern::literal(m.replacement), Behavior::merged_with_next) : PreTokenizer();
  return [=](Pieces& pieces) {
    bool prepend = m.prepend == Metaspace::Prepend::always || (m.prepend == Metaspace::Prepend::first && pieces.at_start);
    rewrite(pieces, [&](std::string& text, std::string_view piece) {
      if (prepend && piece[0] != ' ' && !piece.starts_with(m.replacement)) text += m.replacement;
      for (const char c : piece) c == ' ' ? text += m.replacement : text += c;
      prepend = m.prepend == Metaspace::Prepend::always;
    });
    if (cut) cut(pieces);
  };
}

PreTokenizer split_by_pattern(const Json& json) {
  const Json& pattern = json.at("pattern");
  const Json* regex = pattern.find("Regex");
  return splitter(regex ? Pattern::regex(regex->string()) : Pattern::literal(pattern.string("String")),
                  behavior_named(json.string("behavior")), json.boolean("invert"));
}

// White space goes; what is between is cut at the characters of `set`.
PreTokenizer words(const CodeSet& set, Behavior behavior) {
  return [spaces = splitter(Pattern::any_of(white_space()), Behavior::removed),
          others = splitter(Pattern::any_of(set), behavior)](Pieces& pieces) {
    spaces(pieces);
    others(pieces);
  };
}

PreTokenizer sequence(const Json& json) {
  std::vector<PreTokenizer> steps;
  for (const Json& step : json.array("pretokenizers")) steps.push_back(make_pre_tokenizer(&step));
  return [steps = std::move(steps)](Pieces& pieces) {
    for (const PreTokenizer& step : steps) step(pieces);
  };
}

}  // namespace

PreTokenizer make_pre_tokenizer(const Json* json) {
  if (!json || json->is_null()) return [](Pieces&) {};
  const std::string& type = json->string("type");
  if (type == "Sequence") return sequence(*json);
  if (type == "ByteLevel") return byte_level(*json);
  if (type == "Metaspace") return metaspace(*json);
  if (type == "Split") return split_by_pattern(*json);
  if (type == "Digits") {
    const bool single = json->boolean("individual_digits");
    return splitter(Pattern::any_of(digit_characters()), single ? Behavior::isolated : Behavior::contiguous);
  }
  if (type == "Punctuation") {
    return splitter(Pattern::any_of(punctuation_characters()), behavior_named(json->string("behavior", "Isolated")));
  }
  if (type == "WhitespaceSplit") return splitter(Pattern::any_of(white_space()), Behavior::removed);
  if (type == "Whitespace") return words(word_characters(), Behavior::contiguous);
  if (type == "BertPreTokenizer") return words(punctuation_characters(), Behavior::isolated);
  if (type == "CharDelimiterSplit") return splitter(Pattern::literal(json->string("delimiter")), Behavior::removed);
  unsupported("pre_tokenizer ", quote(type));
}

}  // namespace signround
