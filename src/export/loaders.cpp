#include "export/loaders.h"

#include <algorithm>
#include <map>
#include <set>
#include <string_view>

namespace signround {
namespace {

enum class Grid { any, sym, asym };

// An engine reads a format if for every quantized layer one of its rows admits it. Sources: the engines' code and documents as of
// autumn 2026.
struct Row {
  std::string_view engine, formats;  // formats between commas; "gguf" is all of that family
  std::string_view bits;             // digits
  Grid grid;
  bool marlin;  // groups of -1, 32, 64 or 128, outputs a multiple of 64, inputs of 128
  std::string_view needs;
};

constexpr Row kRows[] = {
    {"vLLM", "auto_round,gptq,gptq_v2,compressed-tensors", "48", Grid::sym, true, "Marlin kernels"},
    {"vLLM", "auto_round,awq,compressed-tensors", "4", Grid::asym, true, "Marlin kernels"},
    {"vLLM", "compressed-tensors", "8", Grid::asym, true, "its kernels with zero points"},
    {"vLLM", "auto_round,compressed-tensors", "23567", Grid::sym, true, "its Humming kernels (versions after August 2026)"},
    {"vLLM", "fake", "2345678", Grid::any, false, "nothing beside"},
    {"vLLM", "gguf", "48", Grid::any, false, "the package vllm-gguf-plugin, and the original's tokenizer"},
    {"vLLM", "gguf:q2_k,gguf:q3_k,gguf:q4_k,gguf:q5_k,gguf:q6_k", "234568", Grid::any, false,
     "the package vllm-gguf-plugin, and the original's tokenizer"},
    {"SGLang", "auto_round,gptq,gptq_v2", "48", Grid::sym, true, "Marlin kernels"},
    {"SGLang", "auto_round,gptq,gptq_v2", "23", Grid::sym, false, "its older GPTQ kernels"},
    {"SGLang", "auto_round,awq", "4", Grid::asym, true, "Marlin kernels"},
    {"SGLang", "compressed-tensors", "48", Grid::sym, true, "Marlin kernels"},
    {"SGLang", "fake", "2345678", Grid::any, false, "nothing beside"},
    {"SGLang", "gguf", "48", Grid::any, false, "nothing beside"},
    {"SGLang", "gguf:q2_k,gguf:q3_k,gguf:q4_k,gguf:q5_k,gguf:q6_k", "234568", Grid::any, false, "nothing beside"},
    {"transformers", "auto_round", "2348", Grid::any, false, "the package auto-round"},
    {"transformers", "gptq,gptq_v2", "2348", Grid::any, false, "the package gptqmodel"},
    {"transformers", "awq", "4", Grid::asym, false, "the package gptqmodel"},
    {"transformers", "compressed-tensors", "2345678", Grid::sym, false, "the package compressed-tensors, for 3 bits a new one"},
    {"transformers", "compressed-tensors", "48", Grid::asym, false,
     "the package compressed-tensors, 0.15 to 0.17: 0.18 to 0.20 refuse packed zero points"},
    {"transformers", "fake", "2345678", Grid::any, false, "nothing beside"},
    {"transformers", "gguf", "48", Grid::any, false, "the package gguf; the weights are dequantized"},
    {"transformers", "gguf:q2_k,gguf:q3_k,gguf:q4_k,gguf:q5_k,gguf:q6_k", "234568", Grid::any, false,
     "the package gguf; the weights are dequantized"},
    {"llama.cpp", "gguf", "48", Grid::any, false, "any version"},
    {"llama.cpp", "gguf:q2_k,gguf:q3_k,gguf:q4_k,gguf:q5_k,gguf:q6_k", "234568", Grid::any, false, "any version"},
    {"llama.cpp", "gguf", "2", Grid::sym, false, "a version after June 2026"},
    {"TensorRT-LLM", "gptq", "4", Grid::sym, true, "conversion; Llama and Qwen, Ampere to Hopper"},
    {"TensorRT-LLM", "fake", "2345678", Grid::any, false, "conversion"},
};

bool lists(std::string_view formats, std::string_view format) {
  const auto has = [&](std::string_view name) {
    return cat(",", formats, ",").find(cat(",", name, ",")) != std::string::npos;
  };
  return has(format) || has(format.substr(0, format.find(':')));
}

// Why the row does not admit the layer; empty if it does.
std::string objection(const Row& row, const PlannedLayer& layer) {
  const QuantSpec& s = layer.spec;
  if (row.bits.find(static_cast<char>('0' + s.bits)) == std::string_view::npos) return cat("not at ", s.bits, " bits");
  if (row.grid != Grid::any && s.symmetric != (row.grid == Grid::sym))
    return cat("not with ", s.symmetric ? "a symmetric" : "an asymmetric", " grid of ", s.bits, " bits");
  if (!row.marlin) return "";
  constexpr i64 kGroups[] = {-1, 32, 64, 128};
  if (std::find(std::begin(kGroups), std::end(kGroups), group_size(s)) == std::end(kGroups))
    return cat("not in groups of ", s.group);
  if (layer.rows % 64 != 0) return cat(layer.name, " has ", layer.rows, " outputs, no multiple of 64");
  if (layer.cols % 128 != 0) return cat(layer.name, " has ", layer.cols, " inputs, no multiple of 128");
  return "";
}

// Why the engine does not take the layers together, whatever each of them is; empty if it does.
std::string joint_objection(std::string_view engine, const std::string& format, const std::vector<PlannedLayer>& layers) {
  if (format == "fake" || format.starts_with("gguf")) return "";
  const bool serves = engine == "vLLM" || engine == "SGLang";
  std::map<std::string, QuantSpec> fused;
  const PlannedLayer* first = nullptr;
  for (const PlannedLayer& layer : layers) {
    if (const std::string name = fused_name(layer.name); serves && !name.empty()) {
      const auto [part, is_new] = fused.try_emplace(name, layer.spec);
      if (!is_new && !(part->second == layer.spec)) return cat("the parts of ", name, " must be quantized alike");
    }
    if (engine == "TensorRT-LLM" && !(layer.spec == layers[0].spec))
      return cat("one grid for all layers, but ", layer.name, " has another than ", layers[0].name);
    if (!layer.spec.quantized()) continue;
    if (!first) first = &layer;
    // Its packing for such a model is the one that they do not know (export/auto_round.cpp).
    if (serves && format == "auto_round" && layer.spec.symmetric != first->spec.symmetric)
      return "not with symmetric and asymmetric layers in one model";
  }
  return "";
}

// Whether each layer is admitted by one of the engine's rows for the format: an engine chooses its kernels by layer.
Verdict verdict_of(std::string_view engine, const std::string& format, const std::vector<PlannedLayer>& layers) {
  std::set<const Row*> used;
  for (const PlannedLayer& layer : layers) {
    if (!layer.spec.quantized()) continue;
    std::string against = cat("does not read ", format);
    std::size_t furthest = 0;  // the objection of the row that came closest: one about bits says least
    const Row* admits = nullptr;
    for (const Row& row : kRows) {
      if (admits || row.engine != engine || !lists(row.formats, format)) continue;
      const std::string why = objection(row, layer);
      const std::size_t far = why.starts_with("not at") ? 1 : why.starts_with("not with") ? 2 : 3;
      if (why.empty()) admits = &row;
      else if (far > furthest) against = why, furthest = far;
    }
    if (!admits) return {std::string(engine), false, against};
    used.insert(admits);
  }
  if (const std::string against = joint_objection(engine, format, layers); !against.empty())
    return {std::string(engine), false, against};
  std::string rule;
  for (const Row& row : kRows)
    if (const bool said = rule.find(row.needs) != std::string::npos; used.contains(&row) && !said)
      rule += cat(rule.empty() ? "with " : " and ", row.needs);
  return {std::string(engine), true, rule};
}

}  // namespace

std::vector<Verdict> who_loads(const std::string& format, std::vector<PlannedLayer> layers) {
  // The first objection is told: let it not depend on the order in which the layers come.
  std::sort(layers.begin(), layers.end(), [](const PlannedLayer& a, const PlannedLayer& b) { return a.name < b.name; });
  std::vector<Verdict> verdicts;
  for (const char* engine : {"vLLM", "SGLang", "transformers", "llama.cpp", "TensorRT-LLM"})
    verdicts.push_back(verdict_of(engine, format, layers));
  return verdicts;
}

}  // namespace signround
