#include "quant/layer_rules.h"

#include <algorithm>

#include "base/nearest.h"
#include "quant/scheme.h"

namespace signround {
namespace {

constexpr std::string_view kMeta = "*+?()[]{}|\\^$";

LayerRules::Rule read_rule(const JsonMember& member) {
  LayerRules::Rule rule;
  rule.key = member.key;
  check(!rule.key.empty(), ErrorKind::bad_input, "a key is empty: every layer would be meant; give --bits instead");
  if (rule.key.find_first_of(kMeta) != std::string::npos) {
    // No name has a line's end in it, so that the leftmost match tells whether there is one at the start.
    rule.from_start = rule.key.starts_with('^');
    rule.pattern = Pattern::regex(std::string_view(rule.key).substr(rule.from_start ? 1 : 0));
  }
  constexpr std::string_view kKeys[] = {"bits", "group_size", "sym", "data_type"};
  for (const JsonMember& m : member.value.object())
    check(std::find(std::begin(kKeys), std::end(kKeys), m.key) != std::end(kKeys), ErrorKind::bad_input, quote(m.key),
          " is not known here; the nearest is ", nearest(m.key, kKeys));
  check(!member.value.object().empty(), ErrorKind::bad_input, "says nothing; it may have bits, group_size and sym");
  if (member.value.find("bits")) rule.bits = static_cast<int>(std::clamp<i64>(member.value.integer("bits"), -1, 99));
  if (member.value.find("group_size")) rule.group = member.value.integer("group_size");
  if (member.value.find("sym")) rule.symmetric = member.value.boolean("sym");
  check_grid(rule.applied_to({4, 128, true}), ErrorKind::bad_input, "bits", "group_size", true);
  const bool plain = rule.bits.value_or(4) == 16;
  const std::string type = member.value.string("data_type", plain ? "fp" : "int");
  check(type == (plain ? "fp" : "int"), ErrorKind::bad_input, "data_type ", quote(type), ": must be ", plain ? "fp" : "int",
        plain ? " at 16 bits" : " below 16 bits");
  return rule;
}

}  // namespace

bool LayerRules::Rule::fits(const std::string& name) const {
  if (!pattern) return has_part(name, key);
  const std::optional<Pattern::Match> match = pattern->find(name, 0);
  return match && (!from_start || match->begin == 0);
}

QuantSpec LayerRules::Rule::applied_to(QuantSpec spec) const {
  if (bits == 16) return {.bits = 16, .group = -1, .symmetric = true};
  spec.bits = bits.value_or(spec.bits);
  spec.group = group.value_or(spec.group);
  spec.symmetric = symmetric.value_or(spec.symmetric);
  spec.scale_bits = 0;  // what is told of a layer here is a grid of one level
  return spec;
}

LayerRules LayerRules::read(const Path& file) { return parse(read_json(file), file.string()); }

LayerRules LayerRules::parse(const Json& json, const std::string& file) {
  LayerRules config;
  config.file_ = file;
  within(file, [&] {
    for (const JsonMember& member : json.object())
      within(quote(member.key), [&] { config.rules_.push_back(read_rule(member)); });
  });
  return config;
}

const LayerRules::Rule* LayerRules::rule_for(const std::string& name) const {
  for (const Rule& rule : rules_)
    if (rule.key == name) return &rule;
  for (const Rule& rule : rules_)
    if (rule.fits(name)) return &rule;
  return nullptr;
}

void LayerRules::check_keys(std::span<const std::string> names) const {
  for (const Rule& rule : rules_)
    within(file_, [&] {
      within(quote(rule.key), [&] {
        const bool fits = std::any_of(names.begin(), names.end(), [&](const std::string& name) { return rule.fits(name); });
        check(fits, ErrorKind::bad_input, rule.pattern ? "is found in no" : "is no part of any",
              " linear layer's name; the nearest is ", nearest_part(rule.key, names));
        check(rule.key != "lm_head" || rule.bits == 16, ErrorKind::bad_input,
              "the head stays at 16 bits: leave this key out, or give it \"bits\": 16");
      });
    });
}

}  // namespace signround
