#include "cli/help.h"

#include "base/error.h"
#include "cli/commands.h"

namespace signround {
namespace {

struct Topic {
  std::string_view name, summary, text;
};

constexpr Topic kTopics[] = {
    {"schemes", "names for bits and group sizes",
     R"(A scheme says how weights are stored: W4A16G64 keeps 4 bits a weight and one scale for
each 64 of them. Without G the group is 128. --bits, --group-size (-1: a whole row), --asym and --sym change one thing each and
win over --scheme.
Symmetric grids have levels -2^(bits-1) .. 2^(bits-1)-1 and a scale that may be negative; asymmetric ones store a zero point.
Fewer bits want smaller groups: W4A16 loses little as it is, 2 bits want G64 or G32.
)"},
    {"formats", "what is written",
     R"(auto_round          2, 3, 4, 8 bits; packed as auto-round chooses: GPTQ if symmetric, AWQ at 4 bits if not
gptq, gptq_v2       2, 3, 4, 8 bits with g_idx; the first version is symmetric only
awq                 4 bits with zero points (--asym)
compressed-tensors  pack-quantized; 2 to 8 bits, with zero points 4 and 8
gguf:q4_0 q4_1 q8_0 q2_0  a file for llama.cpp: 4 bits symmetric, 4 bits --asym, 8 bits, 2 bits in groups of 64
gguf:q2_k q3_k q4_k q5_k q6_k  the same with K-quants: bits and groups are the format's own, scales of two levels are tuned with
                    the weights; rows that are no multiples of 256 become q4_0, q5_0, q5_1 or q8_0, as signround plan tells
fake                the dequantized weights in the original type: as large as the original, loads anywhere
Several at once, separated by commas, make a folder a format under OUT. One format is written to OUT itself.
)"},
    {"recipes", "sets of tuning options",
     R"(            --iters  --nsamples  --lr
light           50        128    0.005
default        200        128    1/iters
best          1000        512    1/iters; 2/iters at 3 bits and fewer
All with --seqlen 2048 --batch-size 8. Options given beside --recipe win. --iters 0 rounds to nearest and needs no text.
)"},
    {"datasets", "what calibration and perplexity read",
     R"(builtin      a text inside the program (quantize only)
FILE.txt     plain text
FILE.jsonl   a JSON object a line, its "text" (quantize only)
--ids FILE   whitespace-separated token ids, so that a tokenizer that is not supported never stands in the way
)"},
    {"exit-codes", "what the program returns",
     R"(0  done
1  a bug in this program
2  the command line is wrong
3  the input is bad or not supported
4  a file cannot be read or written, or the disk is full
5  out of memory
6  interrupted
7  a check of written output failed
An error is one line on stderr: what, where, what to do.
)"},
};

}  // namespace

std::string overview() {
  std::string text = "signround quantizes Hugging Face language models by SignRound (arXiv 2309.05516)\n\n";
  text += "usage: signround COMMAND ...\n\n";
  const auto row = [&](std::string_view name, std::string_view summary) {
    text += cat("  ", name, std::string(name.size() < 12 ? 12 - name.size() : 1, ' '), summary, "\n");
  };
  for (const Command* c : kCommands) row(c->name, c->summary);
  text += "\nsignround COMMAND -h lists its options, --help explains them. signround help TOPIC:\n\n";
  for (const Topic& t : kTopics) row(t.name, t.summary);
  return text + cat("\nexample: ", quantize_command.example, "\n");
}

const Command& command_named(std::string_view name) {
  std::vector<std::string_view> names = {"help"};
  for (const Command* c : kCommands) {
    if (c->name == name) return *c;
    names.push_back(c->name);
  }
  fail(ErrorKind::usage, "unknown command ", name, did_you_mean(name, names), "; signround help lists them");
}

std::string help_on(std::string_view topic) {
  std::vector<std::string_view> names;
  std::string list;
  for (const Command* c : kCommands) {
    if (c->name == topic) return help_text(*c, Help::full);
    names.push_back(c->name);
  }
  for (const Topic& t : kTopics) {
    if (t.name == topic) return std::string(t.text);
    names.push_back(t.name);
    list += cat(list.empty() ? "" : ", ", t.name);
  }
  fail(ErrorKind::usage, "no help on ", topic, did_you_mean(topic, names), "; topics: the commands, ", list);
}

}  // namespace signround
