#include "text/calibration.h"

#include <algorithm>
#include <charconv>
#include <numeric>

#include "base/rng.h"

namespace signround {

DatasetKind dataset_kind(std::string_view path) { return path.ends_with(".jsonl") ? DatasetKind::jsonl : DatasetKind::text; }

std::vector<i32> dataset_ids(std::string_view content, DatasetKind kind, const Tokenizer& tokenizer) {
  if (kind == DatasetKind::text) return tokenizer.encode(content, false);
  std::vector<i32> ids;
  i64 number = 0;
  for (size_t at = 0; at < content.size();) {
    const size_t end = std::min(content.find('\n', at), content.size());
    const std::string_view line = content.substr(at, end - at);
    at = end + 1;
    ++number;
    if (line.find_first_not_of(" \t\r") == line.npos) continue;
    within(cat("line ", number), [&] {
      const Json document = parse_json(line);
      const std::string& text = document.kind() == Json::Kind::string ? document.string() : document.string("text");
      const std::vector<i32> more = tokenizer.encode(text, false);
      ids.insert(ids.end(), more.begin(), more.end());
    });
  }
  return ids;
}

std::vector<i32> parse_ids(std::string_view content, i64 vocab) {
  constexpr std::string_view space = " \t\r\n\v\f";
  std::vector<i32> ids;
  for (size_t at = content.find_first_not_of(space); at < content.size(); at = content.find_first_not_of(space, at)) {
    const size_t end = std::min(content.find_first_of(space, at), content.size());
    i32 id = 0;
    const auto [stop, error] = std::from_chars(content.data() + at, content.data() + end, id);
    check(stop == content.data() + end && error == std::errc(), ErrorKind::bad_input, "byte ", at,
          ": expected a token id, found ", quote(content.substr(at, end - at)));
    check(0 <= id && id < vocab, ErrorKind::bad_input, "byte ", at, ": token id ", id, " is not in the vocabulary of ", vocab,
          ": the ids belong to another model");
    ids.push_back(id);
    at = end;
  }
  return ids;
}

std::vector<std::vector<i32>> cut_windows(std::span<const i32> ids, const SpecialIds& special, const WindowOptions& options) {
  const i64 around = static_cast<i64>(special.before.size() + special.after.size()), body = options.length - around;
  check(options.count > 0 && body > 0, ErrorKind::usage, "cannot cut ", options.count, " windows of ", options.length,
        " tokens, of which ", around, " are special");
  const i64 have = static_cast<i64>(ids.size()), windows = have / body;
  check(windows >= options.count, ErrorKind::bad_input, "the text has ", have, " tokens, enough for ", windows,
        " samples of ", options.length, ", but ", options.count,
        " are needed: lower --nsamples or --seqlen, or give a longer text");
  std::vector<i64> order(windows);
  std::iota(order.begin(), order.end(), i64{0});
  PythonRandom(options.seed).shuffle(std::span<i64>(order));

  std::vector<std::vector<i32>> samples;
  for (const i64 window : std::span(order).first(options.count)) {
    std::vector<i32>& sample = samples.emplace_back(special.before);
    const std::span<const i32> part = ids.subspan(window * body, body);
    sample.insert(sample.end(), part.begin(), part.end());
    sample.insert(sample.end(), special.after.begin(), special.after.end());
  }
  return samples;
}

}  // namespace signround
