// `signround inspect`: what a model directory or a .safetensors file holds, and what is wrong with it.
#include <algorithm>
#include <filesystem>
#include <map>
#include <utility>

#include "cli/commands.h"
#include "cli/console.h"
#include "io/checkpoint.h"
#include "model/model.h"
#include "model/tokens.h"

namespace signround {
namespace {

constexpr Flag kFlags[] = {
    {.name = "--brief", .help = "without the list of tensors"},
    kJsonFlag,
};

constexpr const char* kQuantizationKeys[] = {"quant_method", "bits", "group_size", "sym", "packing_format"};

struct Report {
  std::string kind;          // "LlamaForCausalLM", or "file"
  std::string tokenizer;     // empty: not looked for
  Json quantization;         // null: none
  std::map<std::string_view, std::pair<i64, i64>> types;  // name -> tensors, bytes
  i64 bytes = 0;
  std::vector<std::string> problems;
};

std::string shape_text(const std::vector<i64>& shape) {
  std::string text;
  for (const i64 d : shape) text += cat(text.empty() ? "" : ", ", d);
  return "[" + text + "]";
}

// Runs f; input that it refuses becomes a problem of the report.
template <class F>
void look(Report& report, F f) {
  try {
    f();
  } catch (const Error& e) {
    if (e.kind != ErrorKind::bad_input) throw;
    report.problems.push_back(one_line(e.message));
  }
}

void look_at_model(Report& report, const Checkpoint& checkpoint) {
  const Json& config = checkpoint.config();
  look(report, [&] { report.kind = read_config(config).architecture; });
  if (report.problems.empty()) look(report, [&] { Model(checkpoint.path().string()); });
  const Json* quantization = config.find("quantization_config");
  if (quantization && quantization->kind() == Json::Kind::object)
    for (const char* key : kQuantizationKeys)
      if (const Json* value = quantization->find(key)) report.quantization.set(key, *value);
  report.tokenizer = "none: give token ids with --ids";
  if (!std::filesystem::exists(checkpoint.path() / "tokenizer.json")) return;
  report.tokenizer = "not usable: give token ids with --ids";
  look(report, [&] { report.tokenizer = cat(read_tokenizer(checkpoint.path().string()).vocab_size(), " tokens"); });
}

Report examine(const Checkpoint& checkpoint) {
  Report report;
  for (const TensorInfo* t : checkpoint.tensors()) {
    auto& [count, bytes] = report.types[name_of(t->dtype)];
    ++count;
    bytes += static_cast<i64>(t->bytes);
    report.bytes += static_cast<i64>(t->bytes);
  }
  if (std::filesystem::is_directory(checkpoint.path())) look_at_model(report, checkpoint);
  else report.kind = "one file";
  return report;
}

void print(const Checkpoint& checkpoint, const Report& report, bool brief) {
  put(cat(checkpoint.path().string(), "\n"));
  put(cat("  kind          ", report.kind.empty() ? "unknown" : report.kind, "\n"));
  put(cat("  files         ", checkpoint.files().size(), "\n"));
  for (const auto& [type, sum] : report.types)
    put(cat("  tensors       ", sum.first, " ", type, ", ", human_bytes(sum.second), "\n"));
  put(cat("  quantization  ", report.quantization.is_null() ? "none" : to_text(report.quantization), "\n"));
  if (!report.tokenizer.empty()) put(cat("  tokenizer     ", report.tokenizer, "\n"));
  if (report.problems.empty()) put("  problems      none\n");
  for (const std::string& problem : report.problems) put(cat("  problem       ", problem, "\n"));
  if (brief) return;
  size_t width = 0;
  for (const TensorInfo* t : checkpoint.tensors()) width = std::max(width, one_line(t->name).size());
  put("\n");
  for (const TensorInfo* t : checkpoint.tensors()) {
    std::string name = one_line(t->name), shape = shape_text(t->shape);
    name.resize(width, ' ');
    shape.resize(std::max<size_t>(shape.size(), 16), ' ');
    put(cat(name, "  ", name_of(t->dtype), "  ", shape, "  ", human_bytes(static_cast<i64>(t->bytes)), "\n"));
  }
}

void print_json(const Checkpoint& checkpoint, const Report& report, bool brief) {
  Json types = Json::object({}), problems = Json::array({}), tensors = Json::array({});
  for (const auto& [type, sum] : report.types)
    types.set(type, Json::object({{"tensors", sum.first}, {"bytes", sum.second}}));
  for (const std::string& problem : report.problems) problems.push(problem);
  Json json = Json::object({{"path", checkpoint.path().string()},
                            {"kind", report.kind},
                            {"files", checkpoint.files().size()},
                            {"bytes", report.bytes},
                            {"types", types},
                            {"quantization", report.quantization},
                            {"problems", problems}});
  if (!report.tokenizer.empty()) json.set("tokenizer", report.tokenizer);
  for (const TensorInfo* t : checkpoint.tensors()) {
    Json shape = Json::array({});
    for (const i64 d : t->shape) shape.push(d);
    tensors.push(Json::object({{"name", t->name},
                               {"dtype", name_of(t->dtype)},
                               {"shape", shape},
                               {"bytes", t->bytes},
                               {"file", checkpoint.file_of(t->name).filename().string()},
                               {"offset", t->offset}}));
  }
  if (!brief) json.set("tensors", tensors);
  put_json(json);
}

void run(const Arguments& args) {
  const Checkpoint checkpoint(args.argument);
  const Report report = examine(checkpoint);
  const auto show = args.toggle("--json") ? print_json : print;
  show(checkpoint, report, args.toggle("--brief"));
}

}  // namespace

const Command inspect_command = {
    .name = "inspect",
    .argument = "PATH",
    .summary = "what a model directory or a .safetensors file holds, and what is wrong with it",
    .details = "A file whose header is damaged is an error, exit 3. What this program cannot work with is listed as a problem.",
    .example = "signround inspect data/model --brief",
    .flags = kFlags,
    .run = run,
};

}  // namespace signround
