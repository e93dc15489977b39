// The program as users meet it: exit codes, one-line errors on stderr, results alone on stdout. SIGNROUND names the program.
#include <sys/wait.h>

#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>

#include "io/json.h"
#include "scratch.h"

using namespace signround;

namespace {

const std::string kModel = "tests/data/peer/tiny_llama";

struct Outcome {
  int code;
  std::string out, err;
};

std::string slurp(const Path& path) {
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

// Makes a file; its name as the shell wants it.
std::string file(const TempDir& scratch, const std::string& name, const std::string& content) {
  std::ofstream(scratch / name, std::ios::binary) << content;
  return "'" + (scratch / name).string() + "'";
}

std::string program() {
  const char* named = std::getenv("SIGNROUND");
  return named ? named : "build/signround";
}

// Runs `signround WORDS` through the shell; `redirect` may send its output elsewhere.
Outcome run(const std::string& words, const std::string& redirect = "") {
  const TempDir scratch;
  const Path out = scratch / "out", err = scratch / "err";
  const std::string command = cat(program(), " ", words, " </dev/null >", out, " 2>", err, " ", redirect);
  const int status = std::system(command.c_str());
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, slurp(out), slurp(err)};
}

// Fails unless the command ends with `code`, nothing on stdout and one line on stderr that contains `part`.
void check_error(const std::string& words, int code, std::string_view part) {
  CAPTURE(words);
  const Outcome o = run(words);
  CAPTURE(o.err);
  CHECK(o.code == code);
  CHECK(o.out == "");
  CHECK(o.err.starts_with("error: "));
  CHECK(o.err.find('\n') == o.err.size() - 1);
  CHECK(contains(o.err, part));
}

std::string ids_text(int n) {
  std::string text;
  for (int i = 0; i < n; ++i) text += std::to_string(i * 37 % 61) + (i % 10 == 9 ? "\n" : " ");
  return text;
}

}  // namespace

TEST_CASE("cli: help and version") {
  CHECK(run("--version").out.starts_with("signround "));
  const Outcome help = run("help");
  CHECK(help.code == 0);
  CHECK(help.err == "");
  for (const char* verb : {"quantize", "eval", "generate", "inspect", "explain", "tokenize", "doctor", "verify", "export"}) {
    CAPTURE(verb);
    CHECK(contains(help.out, verb));
    const Outcome brief = run(std::string(verb) + " -h"), full = run(std::string(verb) + " --help");
    CHECK(brief.code == 0);
    CHECK(full.code == 0);
    CHECK(brief.out.starts_with("usage: signround " + std::string(verb)));
    CHECK(full.out.size() > brief.out.size());
    CHECK(run("help " + std::string(verb)).out == full.out);
  }
  CHECK(contains(run("quantize --help").out, "default: 200; example: --iters 100"));
  CHECK(contains(run("help exit-codes").out, "out of memory"));
}

TEST_CASE("cli: a wrong command line is exit 2 and one line") {
  check_error("", 2, "no command");
  check_error("quantise model", 2, "did you mean quantize?");
  check_error("help formts", 2, "did you mean formats?");
  check_error("quantize", 2, "needs a MODEL");
  check_error("quantize " + kModel, 2, "needs -o, --output OUT");
  check_error("quantize " + kModel + " -o x --grup-size 64", 2, "did you mean --group-size?");
  check_error("quantize " + kModel + " -o x --iters=-3", 2, "--iters -3: expected a whole number");
  check_error("quantize " + kModel + " -o x --scheme W4A17", 2, "W4A16");
  check_error("quantize " + kModel + " -o x --format auto_rond", 2, "auto_round");
  check_error("quantize " + kModel + " -o x --ignore-layers q_prj --json", 2, "q_proj");
  check_error("quantize " + kModel + " -o x --format gguf:q4_k --bits 4", 2, "W4G32 asym, 6-bit scales: leave --bits");
  check_error("quantize " + kModel + " -o x --format gguf:q4_k,gguf:q2_k", 2, "wants another grid");
  check_error("eval " + kModel, 2, "--ppl FILE");
  check_error("eval " + kModel + " --ppl a --ids b --json", 2, "--ppl FILE");
  check_error("doctor --threads 0", 2, "--threads 0");
  check_error("doctor --device gpu", 2, "--device gpu");
}

TEST_CASE("cli: bad input is exit 3, what cannot be written exit 4, and nothing is left behind") {
  const TempDir scratch;
  const std::string ids = file(scratch, "ids", ids_text(500));
  const std::string tuning = " --iters 2 --nsamples 4 --seqlen 32 --batch-size 2 --scheme W4A16G32 ";
  check_error("quantize /no/such/model -o " + (scratch / "out").string() + tuning, 3, "/no/such/model");
  check_error("eval " + kModel + " --seqlen 16 --ids /no/such/ids", 3, "/no/such/ids");
  check_error("eval " + kModel + " --seqlen 2048 --ids " + ids, 3, "--seqlen");
  check_error("eval " + kModel + " --seqlen 16 --ids " + file(scratch, "far", "1 2 3 99999999 5"), 3, "99999999");
  check_error("eval " + kModel + " --seqlen 16 --ids " + file(scratch, "words", "1 2 three 4"), 3, "three");
  check_error("inspect " + file(scratch, "short.safetensors", "abc"), 3, "short.safetensors");
  check_error("inspect " + file(scratch, "name\nwith\nlines.safetensors", "abc"), 3, "name with lines");
  check_error("quantize " + kModel + " -o /proc/out --ids " + ids + tuning, 4, "/proc/out");
  CHECK(!std::filesystem::exists((scratch / "out").string()));
  CHECK(!std::filesystem::exists((scratch / "out.partial").string()));
  CHECK(run("--version", ">/dev/full").code == 4);
}

TEST_CASE("cli: verify, export, and exit 7 when something is off") {
  const TempDir scratch;
  const std::string out = (scratch / "w4").string(), other = (scratch / "other").string();
  REQUIRE(run("quantize " + kModel + " -o " + out + " --iters 0 --scheme W4A16G32 --shard-size 1MB").code == 0);
  CHECK(contains(run("verify " + out).out, "14 layers on the tuned grid"));
  const Json exported = parse_json(run("export " + out + " --format gptq -o " + other + " --json").out);
  CHECK(exported.at("loaders").at("transformers").boolean("loads"));
  CHECK(run("verify " + other).code == 0);
  check_error("export " + out + " --format awq -o " + other + " --force", 2, "the nearest is --asym");
  check_error("quantize " + kModel + " -o x --shard-size 5PB", 2, "expected a size");
  std::filesystem::remove(scratch / "w4" / "quantization_config.json");
  check_error("verify " + out, 7, "quantization_config.json: is missing");
}

TEST_CASE("cli: quantize, then read what it wrote") {
  const TempDir scratch;
  const std::string ids = file(scratch, "ids", ids_text(2000)), out = (scratch / "w4").string();
  const std::string common = "quantize " + kModel + " -o " + out + " --ids " + ids +
                             " --iters 3 --nsamples 8 --seqlen 32 --batch_size 2 --scheme W4A16G32 --format=auto_round --json";
  const Outcome made = run(common);
  CAPTURE(made.err);
  REQUIRE(made.code == 0);
  const Json report = parse_json(made.out);
  CHECK(report.array("outputs").at(0).string() == out);
  CHECK(report.integer("bits") == 4);
  CHECK(report.array("blocks").size() > 0);
  CHECK(contains(made.err, "loss "));  // a line a block

  check_error(common, 2, "--force");
  CHECK(run(common + " --force --quiet").err == "");

  const std::string eval = "eval " + out + " --ids " + ids + " --seqlen 64 --windows 3";
  const Outcome plain = run(eval), json = run(eval + " --json");
  CHECK(plain.out.starts_with("perplexity "));
  CHECK(contains(plain.out, " (tokens 189)\n"));
  CHECK(parse_json(json.out).integer("tokens") == 189);
  CHECK(parse_json(json.out).number("perplexity") > 1);

  const Json seen = parse_json(run("inspect --json " + out).out);
  CHECK(seen.array("problems").empty());
  CHECK(seen.array("tensors").size() > 0);
  CHECK(contains(run("inspect " + out).out, "auto_round"));
}

TEST_CASE("cli: explain and doctor") {
  CHECK(contains(run("explain " + kModel).out, "self_attn.q_proj"));
  CHECK(parse_json(run("explain --seqlen 64 --json " + kModel).out).array("steps").size() > 5);
  check_error("explain --layer 99 " + kModel, 2, "blocks 0 to");
  CHECK(contains(run("doctor").out, "cpu"));
  CHECK(parse_json(run("doctor --threads 1 --json").out).integer("threads") == 1);
}

TEST_CASE("cli: a signal asks a run to stop: exit 6, the command to repeat, nothing left") {
  const TempDir scratch;
  file(scratch, "ids", ids_text(5000));
  const std::string ids = (scratch / "ids").string(), out = (scratch / "never").string();
  const std::string command = program() + " quantize " + kModel + " -o " + out + " --ids " + ids +
                              " --iters 1000000 --nsamples 8 --seqlen 64 --batch-size 2 --scheme W4A16G32";
  const std::string err = (scratch / "err").string(), output = (scratch / "stdout").string();
  const int status = std::system(("timeout -s INT 2 " + command + " >" + output + " 2>" + err + "; exit $?").c_str());
  CHECK(WEXITSTATUS(status) == 124);  // of timeout: it had to send the signal
  CHECK(slurp(output) == "");
  CHECK(contains(slurp(err), "nothing was written; to run it again: " + command));
  CHECK(!std::filesystem::exists(out));
  CHECK(!std::filesystem::exists(out + ".partial"));
  CHECK(WEXITSTATUS(std::system(("timeout --preserve-status -s TERM 1 " + command + " >/dev/null 2>&1; exit $?").c_str())) == 6);
}
