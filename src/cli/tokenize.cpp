// `signround tokenize`: text to ids and back, and a comparison with ids made elsewhere.
#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "cli/commands.h"
#include "cli/console.h"
#include "io/file.h"
#include "model/tokens.h"
#include "text/calibration.h"

namespace signround {
namespace {

constexpr u64 kMaxIdsFile = u64{8} << 30;
constexpr i64 kAnyId = i64{1} << 31;  // decoding knows no model: an id that no token has gives nothing

constexpr Flag kFlags[] = {
    {.name = "--decode", .help = "ids on stdin, their text on stdout"},
    {.name = "--special", .help = "with the tokens that the model wants around a text; decoding: shows special tokens"},
    {.name = "--check", .kind = FlagKind::text, .value = "FILE",
     .help = "compare with the ids in FILE; exit 7 at the first difference", .example = "--check expected.ids"},
    kJsonFlag,
};

std::string read_stdin() {
  std::string text;
  char buffer[1 << 16];
  while (const size_t n = std::fread(buffer, 1, sizeof buffer, stdin)) text.append(buffer, n);
  check(!std::ferror(stdin), ErrorKind::io, "stdin: ", std::strerror(errno));
  return text;
}

// Throws Error{verification} that shows the first place where the two differ.
void compare(const std::vector<i32>& expected, const std::vector<i32>& ids, const std::string& file, const Tokenizer& tokenizer) {
  const auto [e, i] = std::mismatch(expected.begin(), expected.end(), ids.begin(), ids.end());
  if (e == expected.end() && i == ids.end()) return;
  const auto shown = [&](const std::vector<i32>& list, std::vector<i32>::const_iterator at) {
    return at == list.end() ? std::string("the end") : cat(*at, " ", quoted(tokenizer.decode(std::span(&*at, 1), false)));
  };
  fail(ErrorKind::verification, file, ": token ", i - ids.begin(), ": expected ", shown(expected, e), ", got ", shown(ids, i));
}

Json ids_json(const std::vector<i32>& ids) {
  Json json = Json::array({});
  for (const i32 id : ids) json.push(id);
  return json;
}

void run(const Arguments& args) {
  check(!args.toggle("--decode") || !args.given("--check"), ErrorKind::usage, "--decode and --check exclude each other");
  const Tokenizer tokenizer = read_tokenizer(args.argument);
  const std::string input = read_stdin();
  const bool json = args.toggle("--json"), special = args.toggle("--special");
  if (args.toggle("--decode")) {
    const std::vector<i32> ids = within("stdin", [&] { return parse_ids(input, kAnyId); });
    const std::string text = tokenizer.decode(ids, !special);
    if (!json) return put(text);
    return put_json(Json::object({{"text", text}, {"tokens", ids.size()}}));
  }
  const std::vector<i32> ids = within("stdin", [&] { return tokenizer.encode(input, special); });
  if (args.given("--check")) {
    const std::string file = args.text("--check"), content = read_file(file, kMaxIdsFile);
    compare(within(file, [&] { return parse_ids(content, kAnyId); }), ids, file, tokenizer);
    if (!json) return put(cat("equal (tokens ", ids.size(), ")\n"));
    return put_json(Json::object({{"equal", true}, {"tokens", ids.size()}}));
  }
  if (json) return put_json(Json::object({{"ids", ids_json(ids)}, {"tokens", ids.size()}}));
  std::string line;
  for (const i32 id : ids) line += cat(line.empty() ? "" : " ", id);
  put(line + "\n");
}

}  // namespace

const Command tokenize_command = {
    .name = "tokenize",
    .argument = "MODEL",
    .summary = "text on stdin to token ids on stdout",
    .details = "The text is taken as it is, a newline at its end included. What --decode prints is the text and nothing else.",
    .example = "echo Hello | signround tokenize data/model",
    .flags = kFlags,
    .run = run,
};

}  // namespace signround
