#include "text/calibration.h"

#include <doctest/doctest.h>

#include <numeric>

#include "scratch.h"

using namespace signround;

namespace {

using Ids = std::vector<i32>;

Tokenizer letters() {  // one id a letter, white space dropped
  std::string vocab;
  for (char c = 'a'; c <= 'z'; ++c) vocab += cat(vocab.empty() ? "" : ",", "\"", c, "\":", c - 'a');
  return Tokenizer(cat(R"({"model":{"type":"BPE","vocab":{)", vocab, R"(},"merges":[]}})"));
}

Ids counted(i32 n) {
  Ids ids(static_cast<size_t>(n));
  std::iota(ids.begin(), ids.end(), 0);
  return ids;
}

}  // namespace

TEST_CASE("calibration: windows follow one another, and the seed chooses among them as Python's shuffle does") {
  // Python: r = random.Random(42); order = list(range(5)); r.shuffle(order)  ->  [3, 1, 2, 4, 0]
  const std::vector<Ids> samples = cut_windows(counted(17), {}, {.count = 3, .length = 3, .seed = 42});
  CHECK(samples == std::vector<Ids>{{9, 10, 11}, {3, 4, 5}, {6, 7, 8}});
  CHECK(cut_windows(counted(17), {}, {.count = 5, .length = 3, .seed = 42}).back() == Ids{0, 1, 2});
}

TEST_CASE("calibration: every window has the special ids of a text of its own, within its length") {
  SpecialIds special;
  special.before = {100, 101};
  special.after = {102};
  const std::vector<Ids> samples = cut_windows(counted(5), special, {.count = 2, .length = 5, .seed = 0});
  CHECK(samples == std::vector<Ids>{{100, 101, 0, 1, 102}, {100, 101, 2, 3, 102}});
  CHECK(contains(error_of(ErrorKind::usage, [&] { cut_windows(counted(5), special, {.count = 1, .length = 3}); }), "special"));
}

TEST_CASE("calibration: too few tokens") {
  const std::string message = error_of([] { cut_windows(counted(99), {}, {.count = 4, .length = 32}); });
  CHECK(message == "the text has 99 tokens, enough for 3 samples of 32, but 4 are needed: "
                   "lower --nsamples or --seqlen, or give a longer text");
  CHECK(cut_windows(counted(99), {}, {.count = 3, .length = 32}).size() == 3);
}

TEST_CASE("calibration: a text, and documents that follow one another") {
  const Tokenizer t = letters();
  CHECK(dataset_kind("a.jsonl") == DatasetKind::jsonl);
  CHECK(dataset_kind("a.txt") == DatasetKind::text);
  CHECK(dataset_kind("a.utf8") == DatasetKind::text);
  CHECK(dataset_ids("abc de", DatasetKind::text, t) == Ids{0, 1, 2, 3, 4});
  const std::string lines = "{\"id\":7,\"text\":\"ab\"}\r\n\n\"c\"\n  {\"text\":\"de\"}";
  CHECK(dataset_ids(lines, DatasetKind::jsonl, t) == Ids{0, 1, 2, 3, 4});
  CHECK(dataset_ids("", DatasetKind::jsonl, t).empty());
  const auto error = [&](std::string_view content) { return error_of([&] { dataset_ids(content, DatasetKind::jsonl, t); }); };
  CHECK(contains(error("\"a\"\n{\"txt\":\"b\"}"), "line 2: "));
  CHECK(contains(error("\"a\"\n{\"txt\":\"b\"}"), "text"));
  CHECK(contains(error("\"a\"\n\n{"), "line 3: "));
  CHECK(contains(error_of([&] { dataset_ids("ab\xC3", DatasetKind::text, t); }), "byte 2 of the text is not UTF-8"));
}

TEST_CASE("calibration: ids from a file") {
  CHECK(parse_ids("", 10).empty());
  CHECK(parse_ids(" \n", 10).empty());
  CHECK(parse_ids("0 9\n\t5\r\n007", 10) == Ids{0, 9, 5, 7});
  CHECK(contains(error_of([] { parse_ids("1 2 10", 10); }), "byte 4: token id 10 is not in the vocabulary of 10"));
  CHECK(contains(error_of([] { parse_ids("-1", 10); }), "byte 0: token id -1"));
  for (const char* bad : {"1,2", "[1", "1.0", "+1", "x", "99999999999", "0x1"}) {
    CHECK(contains(error_of([&] { parse_ids(cat("3 ", bad), 10); }), "byte 2: expected a token id, found"));
  }
}
