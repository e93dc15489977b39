#include "text/decode.h"

#include <charconv>

#include "text/byte_level.h"
#include "text/metaspace.h"
#include "text/normalize.h"
#include "text/unicode.h"
#include "text/unsupported.h"

namespace signround {
namespace {

using Tokens = std::vector<std::string>;
using Step = std::function<void(Tokens&)>;  // the result is what is left, put together

// The bytes of all tokens, so that a character may be spread over several; a token that is not written in the alphabet stands for
// itself.
void byte_level(Tokens& tokens) {
  std::string bytes;
  for (const std::string& token : tokens) {
    const size_t start = bytes.size();
    for (size_t at = 0; at < token.size();) {
      const int byte = byte_of_symbol(next_code_point(token, at));
      if (byte < 0) {
        bytes.resize(start);
        bytes += token;
        break;
      }
      bytes.push_back(static_cast<char>(byte));
    }
  }
  tokens = {to_utf8_lossy(bytes)};
}

std::string joined(const Tokens& tokens, std::string_view between) {
  std::string all;
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (i > 0) all += between;
    all += tokens[i];
  }
  return all;
}

// The byte of a token like <0xE2>, or -1.
int byte_token(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return -1;
  int byte = 0;
  const auto [stop, error] = std::from_chars(token.data() + 3, token.data() + 5, byte, 16);
  return error == std::errc() && stop == token.data() + 5 && byte >= 0 ? byte : -1;
}

// Runs of byte tokens become characters, or a U+FFFD for each byte of a run that is not UTF-8.
void byte_fallback(Tokens& tokens) {
  Tokens out;
  std::string run;
  const auto end_run = [&] {
    if (first_invalid_utf8(run) < 0) {
      if (!run.empty()) out.push_back(run);
    } else {
      for (size_t i = 0; i < run.size(); ++i) out.push_back(utf8(0xFFFD));
    }
    run.clear();
  };
  for (std::string& token : tokens) {
    const int byte = byte_token(token);
    if (byte >= 0) {
      run.push_back(static_cast<char>(byte));
    } else {
      end_run();
      out.push_back(std::move(token));
    }
  }
  end_run();
  tokens = std::move(out);
}

// Spaces again; the one that was put before the text goes.
Step metaspace(const Json& json) {
  return [m = read_metaspace(json)](Tokens& tokens) {
    bool drop = m.prepend != Metaspace::Prepend::never;
    for (std::string& token : tokens) {
      std::string spaced;
      for (size_t at = 0, end; at < token.size(); at = end) {
        end = at;
        next_code_point(token, end);
        const std::string_view character = std::string_view(token).substr(at, end - at);
        if (character != m.replacement) spaced += character;
        else if (!drop) spaced += ' ';
      }
      token = std::move(spaced);
      drop = false;
    }
  };
}

// At most so many of a character at either end of each token.
Step strip(const Json& json) {
  return [content = json.string("content"), start = json.integer("start"), stop = json.integer("stop")](Tokens& tokens) {
    for (std::string& token : tokens) {
      std::string_view left = token;
      for (i64 i = 0; i < start && !content.empty() && left.starts_with(content); ++i) left.remove_prefix(content.size());
      for (i64 i = 0; i < stop && !content.empty() && left.ends_with(content); ++i) left.remove_suffix(content.size());
      token = std::string(left);
    }
  };
}

Step replace(const Json& json) {
  return [each = make_normalizer(&json)](Tokens& tokens) {
    for (std::string& token : tokens) each(token);
  };
}

Step make_step(const Json& json) {
  const std::string& type = json.string("type");
  if (type == "ByteLevel") return byte_level;
  if (type == "ByteFallback") return byte_fallback;
  if (type == "Metaspace") return metaspace(json);
  if (type == "Replace") return replace(json);
  if (type == "Strip") return strip(json);
  if (type == "Fuse") return [](Tokens& tokens) { tokens = {joined(tokens, "")}; };
  if (type == "Sequence") {
    std::vector<Step> steps;
    for (const Json& step : json.array("decoders")) steps.push_back(make_step(step));
    return [steps = std::move(steps)](Tokens& tokens) {
      for (const Step& step : steps) step(tokens);
    };
  }
  unsupported("decoder ", quote(type));
}

}  // namespace

Decoder make_decoder(const Json* json) {
  if (!json || json->is_null()) return [](const Tokens& tokens) { return joined(tokens, " "); };
  return [step = make_step(*json)](Tokens tokens) {
    step(tokens);
    return joined(tokens, "");
  };
}

}  // namespace signround
