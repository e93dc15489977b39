// The command line as tables: parsing, checks, defaults, helps. In this process; tests/test_cli.cpp runs the program itself.
#include "base/nearest.h"
#include "cli/commands.h"
#include "cli/console.h"
#include "cli/progress.h"
#include "cli/quantize.h"
#include "scratch.h"

using namespace signround;

namespace {

Arguments parse(const Command& command, const std::vector<std::string>& words) { return parse_arguments(command, words); }

QuantizeOptions options(std::vector<std::string> words) {
  words.insert(words.begin(), {"model", "-o", "out"});
  return quantize_options(parse(quantize_command, words));
}

// The message of the usage error that f throws.
template <class F>
std::string usage_error(F f) {
  const std::string message = error_of(ErrorKind::usage, f);
  CHECK(message != "");
  return message;
}

}  // namespace

TEST_CASE("options: an empty command line gives the pipeline's own defaults") {
  const QuantizeOptions typed = options({}), own;
  CHECK(typed.model == "model");
  CHECK(typed.output == "out");
  CHECK(typed.spec == own.spec);
  CHECK(typed.formats == own.formats);
  CHECK(typed.iters == own.iters);
  CHECK(typed.search_bits == own.search_bits);
  CHECK(typed.lr == own.lr);
  CHECK(typed.minmax_lr == own.minmax_lr);
  CHECK(typed.nsamples == own.nsamples);
  CHECK(typed.seqlen == own.seqlen);
  CHECK(typed.batch_size == own.batch_size);
  CHECK(typed.accumulate == own.accumulate);
  CHECK(typed.dataset == own.dataset);
  CHECK(typed.ids == own.ids);
  CHECK(typed.seed == own.seed);
  CHECK(typed.ignore_layers == own.ignore_layers);
  CHECK(typed.layer_config == own.layer_config);
  CHECK(typed.device == own.device);
  CHECK(typed.precision == own.precision);
  CHECK(typed.force == own.force);
}

TEST_CASE("options: values, in every spelling") {
  CHECK(options({"--iters", "7"}).iters == 7);
  CHECK(options({"--iters=7"}).iters == 7);
  CHECK(options({"--batch_size=3"}).batch_size == 3);
  CHECK(options({"--gradient_accumulate_steps", "3"}).accumulate == 3);
  CHECK(options({"--iters", "7", "--iters", "8"}).iters == 8);
  CHECK(options({"--group-size", "-1"}).spec.group == -1);
  CHECK(options({"--scheme", "W2A16G64"}).spec == QuantSpec{2, 64, true});
  CHECK(options({"--scheme", "W2A16G64", "--bits", "3", "--asym"}).spec == QuantSpec{3, 64, false});
  CHECK(options({"--format", "auto_round,fake"}).formats == std::vector<std::string>{"auto_round", "fake"});
  CHECK(options({"--ignore_layers=lm_head,down_proj"}).ignore_layers == std::vector<std::string>{"lm_head", "down_proj"});
  CHECK(options({"--lr", "5e-3"}).lr == 0.005);
  CHECK(options({"--search-ranges", "on"}).search_bits == 8);
  CHECK(options({"--search-ranges=off"}).search_bits == 0);
  CHECK(options({"--precision", "bf16"}).precision == Precision::bf16);
  CHECK(parse(generate_command, {"m", "--prompt=--not an option"}).text("--prompt") == "--not an option");
  CHECK(parse(generate_command, {"-p", "a_b", "--", "--strange-model"}).argument == "--strange-model");
  CHECK(parse(generate_command, {"-p", "a_b", "m"}).text("--prompt") == "a_b");
}

TEST_CASE("options: recipes, and what is given beside them") {
  const QuantizeOptions light = options({"--recipe", "light"}), best = options({"--recipe", "best"});
  CHECK(light.iters == 50);
  CHECK(light.lr == 0.005);
  CHECK(best.iters == 1000);
  CHECK(best.nsamples == 512);
  CHECK(!best.lr);
  CHECK(options({"--recipe", "best", "--bits", "2"}).lr == 0.002);
  CHECK(options({"--recipe", "light", "--iters", "9", "--lr", "1"}).iters == 9);
  CHECK(options({"--recipe", "light", "--lr", "1"}).lr == 1);
  CHECK(options({"--recipe", "best", "--bits", "2", "--iters", "0"}).lr == std::nullopt);
}

TEST_CASE("options: every mistake is a usage error that says what to type") {
  const auto message = [](std::vector<std::string> words) { return usage_error([&] { options(words); }); };
  CHECK(contains(message({"--grup-size", "64"}), "unknown option --grup-size (did you mean --group-size?)"));
  CHECK(contains(message({"--iter=3"}), "--iters?"));
  CHECK(contains(message({"-x"}), "unknown option -x"));
  CHECK(contains(message({"--iters"}), "--iters needs a value, as in --iters 100"));
  CHECK(contains(message({"--iters", "--force"}), "--iters needs a value"));
  CHECK(contains(message({"--iters", "many"}), "--iters many: expected a whole number"));
  CHECK(contains(message({"--iters", "1.5"}), "whole number"));
  CHECK(contains(message({"--iters", "99999999999999999999"}), "whole number"));
  CHECK(contains(message({"--iters", ""}), "whole number"));
  CHECK(contains(message({"--iters", "-1"}), "from 0 to"));
  CHECK(contains(message({"--nsamples", "0"}), "from 1 to"));
  CHECK(contains(message({"--lr", "nan"}), "--lr nan: expected a number"));
  CHECK(contains(message({"--lr", "-0.1"}), "expected a number"));
  CHECK(contains(message({"--precision", "bf61"}), "expected one of auto|fp32|bf16|fp8 (did you mean bf16?)"));
  CHECK(contains(message({"--force=yes"}), "--force takes no value"));
  CHECK(contains(message({"--format", "fake,"}), "separated by commas"));
  CHECK(contains(message({"--asym", "--sym"}), "exclude each other"));
  CHECK(contains(message({"--dataset", "a.txt", "--ids", "b"}), "exclude each other"));
  CHECK(contains(message({"second"}), "takes one MODEL, but got model and second"));
  CHECK(contains(usage_error([] { parse(quantize_command, {"-o", "out"}); }), "needs a MODEL"));
  CHECK(contains(usage_error([] { parse(quantize_command, {"model"}); }), "needs -o, --output OUT"));
  CHECK(contains(usage_error([] { parse(doctor_command, {"model"}); }), "takes no argument"));
  message({"--scheme", "W9A16"});
  message({"--bits", "9"});
  message({"--group-size", "100"});
}

TEST_CASE("options: tables are complete and their examples and defaults pass their own checks") {
  for (const Command* command : kCommands) {
    CAPTURE(command->name);
    CHECK(parse(*command, {"-h"}).help == Help::brief);
    CHECK(parse(*command, {"--help", "--nonsense"}).help == Help::full);
    const std::string brief = help_text(*command, Help::brief), full = help_text(*command, Help::full);
    CHECK(contains(command->example, "signround " + std::string(command->name)));
    std::vector<std::string> required;
    if (!command->argument.empty()) required.push_back("argument");
    for (const Flag& f : command->flags)
      if (f.required) required.insert(required.end(), {std::string(f.name), "value"});
    for (const Flag& f : command->flags) {
      CAPTURE(f.name);
      CHECK(!f.help.empty());
      CHECK(contains(brief, f.name));
      CHECK(contains(full, f.fallback.empty() ? f.name : f.fallback));
      if (f.kind == FlagKind::toggle) continue;
      CHECK(!f.value.empty());
      const size_t space = f.example.find(' ');
      REQUIRE(space != std::string_view::npos);
      const std::string typed(f.example.substr(0, space));
      CHECK((typed == f.name || typed == f.shortcut));
      std::vector<std::string> words = required;
      words.insert(words.end(), {typed, std::string(f.example.substr(space + 1))});
      CHECK_NOTHROW(parse(*command, words));
      if (!f.fallback.empty()) {
        words.back() = f.fallback;
        CHECK_NOTHROW(parse(*command, words));
      }
    }
  }
}

TEST_CASE("options: the nearest word") {
  const std::vector<std::string_view> words = {"quantize", "eval", "generate"};
  CHECK(edit_distance("", "abc") == 3);
  CHECK(edit_distance("kitten", "sitting") == 3);
  CHECK(edit_distance("evla", "eval") == 1);
  CHECK(nearest("quantise", words) == "quantize");
  CHECK(nearest("x", {}) == "");
  CHECK(did_you_mean("evla", words) == " (did you mean eval?)");
  CHECK(did_you_mean("completely-else", words) == "");
}

TEST_CASE("progress: a bar fits its width, a block is one line") {
  CHECK(bar_text(0.5, 10, "block 1/2", 100) == "[==========          ]  50%  ETA 10.0 s  block 1/2");
  CHECK(bar_text(0, 0, "x", 100) == "[" + std::string(20, ' ') + "]   0%  x");
  CHECK(contains(bar_text(1, 5, "x", 100), "100%"));
  CHECK(bar_text(0.5, 10, "block 1/2", 20).size() == 20);
  BlockReport block;
  block.name = "model.layers.3";
  block.first_loss = 0.00123;
  block.best_loss = 0.001;
  block.best_step = 17;
  block.seconds = 2.5;
  block.tflops = 0.15;
  block.peak_bytes = 500'000'000;
  const std::string begin = "model.layers.3  loss 0.00123 -> 0.001 at 17  2.5 s  150 GFLOP/s";
  CHECK(block_line(block, 0.3) == begin + " (50 % of peak)  peak 500.0 MB");
  CHECK(block_line(block, 0) == begin + "  peak 500.0 MB");
  CHECK(human_bytes(999) == "999 B");
  CHECK(human_bytes(12'345'678) == "12.3 MB");
  CHECK(human_bytes(999'960'000) == "1.0 GB");
  CHECK(human_seconds(65 * 60) == "1h 05m");
  CHECK(human_seconds(125) == "2m 05s");
  CHECK(one_line("a\nb\tc\x7f") == "a b c ");
}
