#include "model/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "model/config.h"

namespace signround {
namespace {

std::vector<double> frequencies(double theta, i64 rotary_dim) {
  std::vector<double> inv_freq;
  for (i64 i = 0; i < rotary_dim / 2; ++i)
    inv_freq.push_back(std::pow(theta, -2 * static_cast<double>(i) / static_cast<double>(rotary_dim)));
  return inv_freq;
}

// The lengths of the context, before it was stretched and now.
struct Context {
  i64 original = 0, now = 0;
  double factor() const { return static_cast<double>(now) / static_cast<double>(original); }
};

// The length before stands beside the scaling (Phi-3), within it, or nowhere.
Context read_context(const Json& json, const Json& scaling, i64 original) {
  constexpr const char* kOriginal = "original_max_position_embeddings";
  constexpr i64 kMost = i64{1} << 32;
  Context c;
  c.now = in_range(json, "max_position_embeddings", 1, kMost, original > 0 ? original : 2048);
  const i64 fallback = original > 0 ? original : in_range(scaling, kOriginal, 2, kMost, c.now);
  c.original = in_range(json, kOriginal, 2, kMost, fallback);
  return c;
}

// Llama 3.1: wavelengths beyond the original context are stretched by `factor`, short ones stay, those between are blended.
void scale_llama3(RopeTable& table, const Json& scaling, const Context& context) {
  const double factor = positive(scaling, "factor", 0), low = positive(scaling, "low_freq_factor", 0);
  const double high = positive(scaling, "high_freq_factor", 0), original = static_cast<double>(context.original);
  check(high > low, ErrorKind::bad_input, "high_freq_factor ", high, " must exceed low_freq_factor ", low);
  for (double& f : table.inv_freq) {
    const double wavelength = 2 * std::numbers::pi / f;
    if (wavelength < original / high) continue;
    if (wavelength > original / low) {
      f /= factor;
      continue;
    }
    const double smooth = (original / wavelength - low) / (high - low);
    f = (1 - smooth) * f / factor + smooth * f;
  }
}

std::vector<double> read_factors(const Json& scaling, const char* key, size_t count) {
  std::vector<double> factors;
  for (const Json& factor : scaling.array(key)) factors.push_back(factor.number());
  check(factors.size() == count, ErrorKind::bad_input, key, " has ", factors.size(), " factors for ", count, " rotary pairs");
  for (double f : factors) check(f > 0, ErrorKind::bad_input, key, " holds ", f, "; factors must be positive");
  return factors;
}

// Phi-3: a factor for each pair, one list for sequences within the original context, one for longer ones.
void scale_longrope(RopeTable& table, const Json& scaling, const Context& context) {
  const size_t pairs = table.inv_freq.size();
  const std::vector<double> near = read_factors(scaling, "short_factor", pairs),
                            far = read_factors(scaling, "long_factor", pairs);
  table.long_from = context.original;
  table.long_inv_freq = table.inv_freq;
  for (size_t i = 0; i < pairs; ++i) table.inv_freq[i] /= near[i], table.long_inv_freq[i] /= far[i];
  const double factor = positive(scaling, "factor", context.factor());
  const double scale = factor <= 1 ? 1 : std::sqrt(1 + std::log(factor) / std::log(static_cast<double>(context.original)));
  table.scale = positive(scaling, "attention_factor", scale);
}

// YaRN (Peng 2023): pairs that turn more than beta_fast times within the original context stay, those that turn less than
// beta_slow times are stretched by `factor`, a linear ramp over the pairs lies between. Scores get sharper by scale^2.
void scale_yarn(RopeTable& table, const Json& scaling, double theta, const Context& context) {
  const double dim = 2 * static_cast<double>(table.inv_freq.size()), factor = positive(scaling, "factor", context.factor());
  const auto pair_of = [&](const char* key, double fallback) {  // that turns so many times, as a fraction
    const double turns = positive(scaling, key, fallback);
    return dim * std::log(static_cast<double>(context.original) / (turns * 2 * std::numbers::pi)) / (2 * std::log(theta));
  };
  double low = pair_of("beta_fast", 32), high = pair_of("beta_slow", 1);
  if (scaling.boolean("truncate", true)) low = std::floor(low), high = std::ceil(high);
  low = std::max(low, 0.0), high = std::min(high, dim - 1);
  if (low == high) high += 0.001;
  for (size_t i = 0; i < table.inv_freq.size(); ++i) {
    const double stretched = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    table.inv_freq[i] *= stretched / factor + (1 - stretched);
  }
  const auto sharpness = [&](double m) { return factor <= 1 ? 1 : 0.1 * m * std::log(factor) + 1; };
  const double m = scaling.number("mscale", 0), all = scaling.number("mscale_all_dim", 0);
  table.scale = positive(scaling, "attention_factor", m != 0 && all != 0 ? sharpness(m) / sharpness(all) : sharpness(1));
}

}  // namespace

RopeTable read_rope(const Json& json, const Json& scaling, double theta, i64 rotary_dim, i64 original) {
  RopeTable table;
  table.inv_freq = frequencies(theta, rotary_dim);
  const std::string kind = scaling.string("rope_type", scaling.string("type", "default"));
  const Context context = read_context(json, scaling, original);
  if (kind == "linear") {
    const double factor = positive(scaling, "factor", 0);
    for (double& f : table.inv_freq) f /= factor;
  } else if (kind == "dynamic") {
    check(rotary_dim > 2, ErrorKind::bad_input, "rope scaling \"dynamic\" needs more than one rotary pair");
    table.growth = positive(scaling, "factor", 0);
    table.theta = theta;
    table.long_from = context.now;
  } else if (kind == "yarn") {
    scale_yarn(table, scaling, theta, context);
  } else if (kind == "llama3") {
    scale_llama3(table, scaling, context);
  } else if (kind == "longrope" || kind == "su") {
    scale_longrope(table, scaling, context);
  } else {
    check(kind == "default", ErrorKind::bad_input, "rope scaling \"", kind,
          "\" is not supported; supported: default, linear, dynamic, yarn, llama3, longrope");
  }
  return table;
}

namespace {

std::vector<double> long_frequencies(const RopeTable& table, i64 tokens) {
  if (table.growth == 0) return table.long_inv_freq;
  const double dim = 2 * static_cast<double>(table.inv_freq.size());
  const double stretch = static_cast<double>(tokens) / static_cast<double>(table.long_from);
  const double base = std::pow(table.growth * stretch - (table.growth - 1), dim / (dim - 2));
  return frequencies(table.theta * base, static_cast<i64>(dim));
}

}  // namespace

std::vector<float> rope_angles(const RopeTable& table, i64 tokens) {
  const bool is_long = table.long_from > 0 && tokens > table.long_from;
  const std::vector<double> inv_freq = is_long ? long_frequencies(table, tokens) : table.inv_freq;
  const size_t pairs = inv_freq.size();
  std::vector<float> angles(static_cast<size_t>(tokens) * 2 * pairs);
  for (i64 t = 0; t < tokens; ++t)
    for (size_t i = 0; i < pairs; ++i) {
      // The angle is rounded to f32 before its cosine is taken, as every implementation that trained such models does.
      const float angle = static_cast<float>(t) * static_cast<float>(inv_freq[i]);
      float* row = angles.data() + static_cast<size_t>(t) * 2 * pairs;
      row[i] = static_cast<float>(std::cos(static_cast<double>(angle)) * table.scale);
      row[pairs + i] = static_cast<float>(std::sin(static_cast<double>(angle)) * table.scale);
    }
  return angles;
}

}  // namespace signround
