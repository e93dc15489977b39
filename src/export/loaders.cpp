#include "export/loaders.h"

#include <algorithm>
#include <map>
#include <string_view>

namespace signround {
namespace {

enum class Grid { any, sym, asym };

// An engine reads a format if one of its rows admits every quantized layer. Sources: the engines' code and documents as of
// autumn 2026.
struct Row {
  std::string_view engine, formats;  // formats between commas; "gguf" is all of them
  std::string_view bits;             // digits
  Grid grid;
  bool marlin;  // groups of -1, 32, 64 or 128, outputs a multiple of 64, inputs of 128; q/k/v and gate/up alike
  std::string_view needs;
};

constexpr Row kRows[] = {
    {"vLLM", "auto_round,gptq,gptq_v2,compressed-tensors", "48", Grid::sym, true, "Marlin kernels"},
    {"vLLM", "auto_round,awq,compressed-tensors", "4", Grid::asym, true, "Marlin kernels"},
    {"vLLM", "compressed-tensors", "8", Grid::asym, true, "its kernels with zero points"},
    {"vLLM", "auto_round,compressed-tensors", "23567", Grid::sym, true, "its Humming kernels (versions after August 2026)"},
    {"vLLM", "fake", "2345678", Grid::any, false, "nothing beside"},
    {"SGLang", "auto_round,gptq,gptq_v2", "48", Grid::sym, true, "Marlin kernels"},
    {"SGLang", "auto_round,gptq,gptq_v2", "23", Grid::sym, false, "its older GPTQ kernels"},
    {"SGLang", "auto_round,awq", "4", Grid::asym, true, "Marlin kernels"},
    {"SGLang", "compressed-tensors", "48", Grid::sym, true, "Marlin kernels"},
    {"SGLang", "fake,gguf", "2345678", Grid::any, false, "nothing beside"},
    {"transformers", "auto_round", "2348", Grid::any, false, "the package auto-round"},
    {"transformers", "gptq,gptq_v2", "2348", Grid::any, false, "the package gptqmodel"},
    {"transformers", "awq", "4", Grid::asym, false, "the package gptqmodel"},
    {"transformers", "compressed-tensors", "2345678", Grid::sym, false, "the package compressed-tensors, for 3 bits a new one"},
    {"transformers", "fake", "2345678", Grid::any, false, "nothing beside"},
    {"transformers", "gguf", "48", Grid::any, false, "the package gguf; the weights are dequantized"},
    {"llama.cpp", "gguf", "48", Grid::any, false, "any version"},
    {"llama.cpp", "gguf", "2", Grid::sym, false, "a version after June 2026"},
    {"TensorRT-LLM", "gptq", "4", Grid::sym, true, "conversion; Llama and Qwen, Ampere to Hopper"},
    {"TensorRT-LLM", "fake", "2345678", Grid::any, false, "conversion"},
};

bool lists(std::string_view formats, std::string_view format) {
  const std::string family(format.substr(0, format.find(':')));
  return cat(",", formats, ",").find(cat(",", family, ",")) != std::string::npos;
}

// Layers that engines join into one: "model.layers.0.self_attn.q_proj" -> "model.layers.0.self_attn.qkv".
std::string joined(const std::string& name) {
  const std::size_t dot = name.rfind('.') + 1;
  const std::string_view last = std::string_view(name).substr(dot);
  if (last == "q_proj" || last == "k_proj" || last == "v_proj") return name.substr(0, dot) + "q/k/v";
  if (last == "gate_proj" || last == "up_proj") return name.substr(0, dot) + "gate/up";
  return name;
}

// Why the row does not admit the layers; empty if it does.
std::string objection(const Row& row, const std::vector<PlannedLayer>& layers) {
  std::map<std::string, QuantSpec> parts;
  for (const PlannedLayer& layer : layers) {
    const QuantSpec& s = layer.spec;
    if (row.marlin) {
      const auto [part, is_new] = parts.try_emplace(joined(layer.name), s);
      if (!is_new && !(part->second == s)) return cat(part->first, " must be quantized alike");
    }
    if (!s.quantized()) continue;
    if (row.bits.find(static_cast<char>('0' + s.bits)) == std::string_view::npos) return cat("not at ", s.bits, " bits");
    if (row.grid != Grid::any && s.symmetric != (row.grid == Grid::sym))
      return cat("not with ", s.symmetric ? "a symmetric" : "an asymmetric", " grid of ", s.bits, " bits");
    if (!row.marlin) continue;
    constexpr i64 kGroups[] = {-1, 32, 64, 128};
    if (std::find(std::begin(kGroups), std::end(kGroups), group_size(s)) == std::end(kGroups))
      return cat("not in groups of ", s.group);
    if (layer.rows % 64 != 0) return cat(layer.name, " has ", layer.rows, " outputs, no multiple of 64");
    if (layer.cols % 128 != 0) return cat(layer.name, " has ", layer.cols, " inputs, no multiple of 128");
  }
  return "";
}

}  // namespace

std::vector<Verdict> who_loads(const std::string& format, std::vector<PlannedLayer> layers) {
  // The first objection is told: let it not depend on the order in which the layers come.
  std::sort(layers.begin(), layers.end(), [](const PlannedLayer& a, const PlannedLayer& b) { return a.name < b.name; });
  std::vector<Verdict> verdicts;
  for (const char* engine : {"vLLM", "SGLang", "transformers", "llama.cpp", "TensorRT-LLM"}) {
    Verdict& verdict = verdicts.emplace_back(Verdict{engine, false, cat("does not read ", format)});
    std::size_t furthest = 0;  // the objection of the row that came closest: one about bits says least
    for (const Row& row : kRows) {
      if (verdict.loads || row.engine != engine || !lists(row.formats, format)) continue;
      const std::string against = objection(row, layers);
      verdict.loads = against.empty();
      const std::size_t far = against.starts_with("not at") ? 1 : against.starts_with("not with") ? 2 : 3;
      if (verdict.loads) verdict.rule = cat("with ", row.needs);
      else if (far > furthest) verdict.rule = against, furthest = far;
    }
  }
  return verdicts;
}

}  // namespace signround
