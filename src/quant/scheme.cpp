#include "quant/scheme.h"

#include <algorithm>
#include <cctype>
#include <string_view>
#include <vector>

#include "base/nearest.h"

namespace signround {
namespace {

constexpr i64 kBits[] = {2, 3, 4, 5, 6, 7, 8, 16};  // the last: left alone
constexpr std::size_t kWidths = std::size(kBits) - 1;
constexpr i64 kGroups[] = {128, 64, 32, -1};
// The packed formats hold 32 values at a time along the input and along the output.
constexpr i64 kMultiple = 32;

struct Named {
  std::string name;
  QuantSpec spec;
};

const std::vector<Named>& schemes() {
  static const std::vector<Named> all = [] {
    std::vector<Named> list;
    for (i64 bits : std::span(kBits).first(kWidths)) {
      list.push_back({cat("W", bits, "A16"), {static_cast<int>(bits), 128, true}});
      for (i64 group : kGroups) list.push_back({cat("W", bits, "A16G", group), {static_cast<int>(bits), group, true}});
    }
    return list;
  }();
  return all;
}

void check_choice(ErrorKind kind, const char* option, i64 value, std::span<const i64> choices) {
  if (std::find(choices.begin(), choices.end(), value) != choices.end()) return;
  std::string list;
  for (i64 c : choices) list += cat(list.empty() ? "" : ", ", c);
  fail(kind, option, " ", value, ": must be one of ", list);
}

}  // namespace

bool has_part(const std::string& name, const std::string& part) {
  const auto inside_number = [&](std::size_t at) {
    const auto digit = [&](std::size_t i) { return std::isdigit(static_cast<unsigned char>(name[i])) != 0; };
    return at > 0 && at < name.size() && digit(at - 1) && digit(at);
  };
  if (part.empty()) return false;
  for (std::size_t at = name.find(part); at != std::string::npos; at = name.find(part, at + 1))
    if (!inside_number(at) && !inside_number(at + part.size())) return true;
  return false;
}

std::string nearest_part(const std::string& typed, std::span<const std::string> names) {
  std::vector<std::string_view> words(names.begin(), names.end());
  for (const std::string& name : names) words.push_back(std::string_view(name).substr(name.rfind('.') + 1));
  return std::string(nearest(typed, words));
}

void check_grid(const QuantSpec& spec, ErrorKind kind, const char* bits, const char* group, bool plain) {
  check_choice(kind, bits, spec.bits, std::span(kBits).first(plain ? kWidths + 1 : kWidths));
  check_choice(kind, group, spec.group, kGroups);
}

QuantSpec parse_scheme(const std::string& name) {
  std::string upper = name;
  for (char& c : upper) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  std::vector<std::string_view> names;
  for (const Named& s : schemes()) {
    if (s.name == upper) return s.spec;
    names.push_back(s.name);
  }
  fail(ErrorKind::usage, "scheme \"", name, "\" is not known; the nearest is ", nearest(upper, names));
}

QuantSpec merge_scheme(const std::string& name, std::optional<i64> bits, std::optional<i64> group,
                       std::optional<bool> symmetric) {
  QuantSpec spec = parse_scheme(name);
  if (bits) spec.bits = static_cast<int>(*bits);
  spec.group = group.value_or(spec.group);
  spec.symmetric = symmetric.value_or(spec.symmetric);
  check_grid(spec, ErrorKind::usage, "--bits", "--group-size");
  return spec;
}

std::string text_of(const QuantSpec& spec) {
  return cat("W", spec.bits, spec.group > 0 ? cat("G", spec.group) : " per row", spec.symmetric ? " sym" : " asym",
             spec.two_levels() ? cat(", ", spec.scale_bits, "-bit scales") : "");
}

std::string reason_to_skip(const std::string& name, i64 rows, i64 cols, std::span<const std::string> ignored) {
  for (const std::string& entry : ignored)
    if (has_part(name, entry)) return cat("ignored by \"", entry, "\"");
  if (rows % kMultiple != 0 || cols % kMultiple != 0)
    return cat(rows, " x ", cols, " is not a multiple of ", kMultiple, " both ways");
  return "";
}

void check_ignored(std::span<const std::string> ignored, std::span<const std::string> names) {
  for (const std::string& entry : ignored) {
    if (std::any_of(names.begin(), names.end(), [&](const std::string& name) { return has_part(name, entry); })) continue;
    fail(ErrorKind::usage, "--ignore-layers ", entry, ": no linear layer has this in its name; the nearest is ",
         nearest_part(entry, names));
  }
}

}  // namespace signround
