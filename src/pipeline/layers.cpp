#include "pipeline/layers.h"

#include <map>

#include "export/gguf.h"
#include "quant/layer_rules.h"
#include "quant/scheme.h"

namespace signround {

i64 LayerPlan::quantized_weights() const {
  i64 sum = 0;
  for (const PlannedLayer& layer : linears) sum += layer.spec.quantized() ? layer.rows * layer.cols : 0;
  return sum;
}

LayerPlan plan_layers(const Model& model, const QuantizeOptions& options) {
  check(!model.packed(), ErrorKind::bad_input, options.model, " is quantized already: give the original model");
  constexpr QuantSpec kPlain{.bits = 16, .group = -1, .symmetric = true};
  const LayerRules own = options.layer_config.empty() ? LayerRules() : LayerRules::read(options.layer_config);
  LayerPlan plan;
  std::vector<std::string> names;
  std::map<i64, i64> fallbacks;  // inputs -> layers
  for (i64 i = 0; i < model.config().layers; ++i) {
    const Program& block = plan.blocks.emplace_back(model.family().block(model.config(), i));
    std::vector<QuantSpec>& specs = plan.specs.emplace_back();
    for (const WeightRef& w : block.weights) {
      specs.push_back(kPlain);
      if (!w.linear && !w.router) continue;
      const std::vector<std::string> layers = block.layer_names(w);
      const i64 rows = w.rows / static_cast<i64>(layers.size());
      const auto spec_of = [&](const LayerRules::Rule* rule) { return rule ? rule->applied_to(options.spec) : options.spec; };
      const LayerRules::Rule* rule = own.rule_for(layers[0]);
      const QuantSpec spec = spec_of(rule);
      std::string reason = w.router ? "it decides over other layers" : "";
      for (const std::string& name : layers) {  // of experts all or none, and alike: engines join them
        if (reason.empty()) reason = reason_to_skip(name, rows, w.cols, options.ignore_layers);
        check(spec_of(own.rule_for(name)) == spec, ErrorKind::usage, "--layer-config: ", name, " would have another grid than ",
              layers[0], ", but the experts of a layer need one");
      }
      if (reason.empty() && !spec.quantized()) reason = cat("left alone by ", quote(rule->key), " of --layer-config");
      if (reason.empty()) specs.back() = gguf_fallback(spec, w.cols);
      else plan.skipped.push_back(cat(block.layer_name(w), ": ", reason));
      for (const std::string& name : layers) {
        if (!reason.empty()) plan.scheme.skipped.push_back(name);
        else if (!(specs.back() == options.spec)) plan.scheme.exceptions.emplace_back(name, specs.back());
        if (reason.empty() && !(specs.back() == spec)) ++fallbacks[w.cols];
        const WeightPlace place = find_weight(model.checkpoint(), name + ".weight");
        plan.linears.push_back({name, rows, w.cols, specs.back(), place.tensor->dtype, place.tensor->name, place.first});
        names.push_back(name);
      }
      plan.scheme.transposed = plan.scheme.transposed || w.transposed;
    }
  }
  names.push_back("lm_head");  // never quantized: to ignore it is no mistake
  check_ignored(options.ignore_layers, names);
  own.check_keys(names);
  check(plan.quantized_weights() > 0, ErrorKind::usage, "no linear layer is left to quantize: all ", plan.linears.size(),
        " are ignored or have sides that are no multiples of 32");
  for (const auto& [cols, count] : fallbacks)
    plan.fallbacks.push_back(cat(count, " layers with ", cols, " inputs as ",
                                 name_of(gguf_type(gguf_fallback(options.spec, cols))), ": ", name_of(gguf_type(options.spec)),
                                 " takes multiples of ", kSuperBlock));
  plan.scheme.spec = options.spec;
  plan.scheme.block_prefix = model.family().block_prefix;
  plan.scheme.iters = options.iters;
  plan.scheme.nsamples = options.nsamples;
  plan.scheme.seqlen = options.seqlen;
  plan.scheme.batch_size = options.batch_size;
  plan.scheme.accumulate = options.accumulate;
  plan.scheme.lr = options.lr;
  plan.scheme.minmax_lr = options.minmax_lr;
  return plan;
}

}  // namespace signround
