#include "cli/options.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>

#include "base/error.h"
#include "base/nearest.h"

namespace signround {
namespace {

template <class Number>
std::optional<Number> number(std::string_view text) {
  Number value{};
  if (text.starts_with('+')) text.remove_prefix(1);
  const std::from_chars_result end = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || end.ec != std::errc() || end.ptr != text.data() + text.size()) return std::nullopt;
  return value;
}

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(separator, begin), text.size());
    parts.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

// Default values pass through here as well (a test does it), so that the helps never show one that would be refused.
void check_value(const Flag& flag, const std::string& value) {
  const auto require = [&](bool ok, const auto&... expected) {
    check(ok, ErrorKind::usage, flag.name, " ", value, ": expected ", expected...);
  };
  const bool bounded = std::abs(flag.most) < 1e15;
  switch (flag.kind) {
    case FlagKind::toggle: break;
    case FlagKind::text: require(!value.empty(), "a value, as in ", flag.example); break;
    case FlagKind::words:
      for (const std::string_view word : split(value, ','))
        require(!word.empty(), "words separated by commas, as in ", flag.example);
      break;
    case FlagKind::integer: {
      const std::optional<i64> n = number<i64>(value);
      const bool inside = n && static_cast<double>(*n) >= flag.least && static_cast<double>(*n) <= flag.most;
      if (bounded) require(inside, "a whole number from ", flag.least, " to ", static_cast<i64>(flag.most));
      else require(inside, "a whole number, ", flag.least, " or more");
      break;
    }
    case FlagKind::real: {
      const std::optional<double> x = number<double>(value);
      require(x && *x >= flag.least && *x <= flag.most, "a number from ", flag.least, " to ", flag.most);
      break;
    }
    case FlagKind::choice: {
      const std::vector<std::string_view> choices = split(flag.value, '|');
      const bool known = std::find(choices.begin(), choices.end(), value) != choices.end();
      require(known, "one of ", flag.value, did_you_mean(value, choices));
    }
  }
}

// "--group_size" -> "--group-size"
std::string with_dashes(std::string name) {
  std::replace(name.begin() + 2, name.end(), '_', '-');
  return name;
}

const Flag* find_flag(std::span<const Flag> flags, std::string_view typed) {
  for (const Flag& f : flags)
    if (typed == f.name || (!f.shortcut.empty() && typed == f.shortcut)) return &f;
  return nullptr;
}

[[noreturn]] void unknown_option(const Command& command, const std::string& typed) {
  std::vector<std::string_view> names = {"--help"};
  for (const Flag& f : command.flags) names.push_back(f.name);
  fail(ErrorKind::usage, "unknown option ", typed, did_you_mean(typed, names), "; signround ", command.name, " -h lists them");
}

// "-o, --output DIR", "--json"
std::string signature(const Flag& flag) {
  std::string s;
  if (!flag.shortcut.empty()) s += cat(flag.shortcut, ", ");
  s += flag.name;
  if (!flag.value.empty()) s += cat(" ", flag.value);
  return s;
}

std::string padded(std::string s, size_t width) {
  s.append(s.size() < width ? width - s.size() : 1, ' ');
  return s;
}

}  // namespace

std::string did_you_mean(std::string_view typed, std::span<const std::string_view> words) {
  const std::string_view word = nearest(typed, words);
  const bool near = !word.empty() && edit_distance(typed, word) <= std::max<size_t>(2, word.size() / 2);
  return near ? cat(" (did you mean ", word, "?)") : "";
}

const Flag& Arguments::flag(std::string_view name, FlagKind kind) const {
  const Flag* f = find_flag(flags_, name);
  const bool text_like = kind == FlagKind::text && f && f->kind == FlagKind::choice;
  check(f && (f->kind == kind || text_like), ErrorKind::bug, "no flag ", name, " of this kind");
  return *f;
}

bool Arguments::given(std::string_view name) const { return values_.contains(name); }

bool Arguments::toggle(std::string_view name) const { return given(flag(name, FlagKind::toggle).name); }

std::string Arguments::text(std::string_view name) const {
  const Flag& f = flag(name, FlagKind::text);
  return given(name) ? values_.at(name) : std::string(f.fallback);
}

std::vector<std::string> Arguments::words(std::string_view name) const {
  const Flag& f = flag(name, FlagKind::words);
  const std::string text = given(name) ? values_.at(name) : std::string(f.fallback);
  if (text.empty()) return {};
  const std::vector<std::string_view> parts = split(text, ',');
  return {parts.begin(), parts.end()};
}

i64 Arguments::integer(std::string_view name) const {
  const Flag& f = flag(name, FlagKind::integer);
  return number<i64>(given(name) ? std::string_view(values_.at(name)) : f.fallback).value();
}

double Arguments::real(std::string_view name) const {
  const Flag& f = flag(name, FlagKind::real);
  return number<double>(given(name) ? std::string_view(values_.at(name)) : f.fallback).value();
}

Arguments parse_arguments(const Command& command, std::span<const std::string> args) {
  Arguments result;
  result.flags_ = command.flags;
  bool only_arguments = false, has_argument = false;
  for (size_t i = 0; i < args.size(); ++i) {
    const std::string& arg = args[i];
    if (only_arguments || !arg.starts_with('-') || arg == "-") {
      check(!command.argument.empty(), ErrorKind::usage, command.name, " takes no argument, but got ", arg);
      check(!has_argument, ErrorKind::usage, command.name, " takes one ", command.argument, ", but got ", result.argument,
            " and ", arg);
      result.argument = arg;
      has_argument = true;
      continue;
    }
    if (arg == "--") {
      only_arguments = true;
      continue;
    }
    if (arg == "-h" || arg == "--help") {
      result.help = arg == "-h" ? Help::brief : Help::full;
      return result;
    }
    const bool is_long = arg.starts_with("--");
    const size_t equals = is_long ? arg.find('=') : std::string::npos;
    const std::string typed = is_long ? with_dashes(arg.substr(0, equals)) : arg;
    const Flag* flag = find_flag(command.flags, typed);
    if (!flag) unknown_option(command, typed);
    std::string& value = result.values_[flag->name];
    if (flag->kind == FlagKind::toggle) {
      check(equals == std::string::npos, ErrorKind::usage, flag->name, " takes no value");
      continue;
    }
    if (equals != std::string::npos) {
      value = arg.substr(equals + 1);
    } else {
      const bool follows = i + 1 < args.size() && !args[i + 1].starts_with("--");
      check(follows, ErrorKind::usage, typed, " needs a value, as in ", flag->example);
      value = args[++i];
    }
    check_value(*flag, value);
  }
  const auto require = [&](bool ok, const auto&... what) {
    check(ok, ErrorKind::usage, command.name, " needs ", what..., ", as in: ", command.example);
  };
  require(has_argument || command.argument.empty(), "a ", command.argument);
  for (const Flag& f : command.flags) require(!f.required || result.given(f.name), signature(f));
  return result;
}

std::string help_text(const Command& command, Help help) {
  std::string usage = cat("signround ", command.name);
  if (!command.argument.empty()) usage += cat(" ", command.argument);
  for (const Flag& f : command.flags)
    if (f.required) usage += cat(" ", f.shortcut.empty() ? f.name : f.shortcut, " ", f.value);
  std::string text = cat("usage: ", usage, command.flags.empty() ? "" : " [options]", "\n", command.summary, "\n");
  if (help == Help::full && !command.details.empty()) text += cat("\n", command.details, "\n");
  size_t width = 0;
  for (const Flag& f : command.flags) width = std::max(width, signature(f).size() + 2);
  if (!command.flags.empty()) text += "\n";
  for (const Flag& f : command.flags) {
    if (help == Help::brief) {
      text += cat("  ", padded(signature(f), width), f.help, "\n");
      continue;
    }
    const std::string fallback = f.kind == FlagKind::toggle ? "off" : f.fallback.empty() ? "none" : std::string(f.fallback);
    text += cat("  ", signature(f), "\n      ", f.help, "\n");
    const std::string_view example = f.example.empty() ? f.name : f.example;
    text += cat("      ", f.required ? "required" : cat("default: ", fallback), "; example: ", example, "\n");
  }
  return text + cat("\nexample: ", command.example, "\n");
}

}  // namespace signround
