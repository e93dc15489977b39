// The command line as data: a table of flags for each command. Parsing, checks, defaults and both helps come from it.
#pragma once
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/dtype.h"

namespace signround {

enum class FlagKind : u8 { toggle, text, words, integer, real, choice };

struct Flag {
  std::string_view name;        // "--group-size"; on the command line underscores do as well as dashes
  std::string_view shortcut{};  // "-o"
  FlagKind kind = FlagKind::toggle;
  std::string_view value{};     // what the helps call the value: "N", "FILE"; of a choice its words: "fp32|bf16"
  std::string_view fallback{};  // the default as one would type it; empty: none
  std::string_view help{};      // one line
  std::string_view example{};   // empty: a toggle's own name
  double least = 0, most = 0;   // of numbers, both included
  bool required = false;
};

class Arguments;

struct Command {
  std::string_view name;      // "quantize"
  std::string_view argument;  // "MODEL"; empty: takes none
  std::string_view summary;   // one line
  std::string_view details;   // for the full help
  std::string_view example;   // a whole command line
  std::span<const Flag> flags;
  void (*run)(const Arguments& args);
};

enum class Help : u8 { none, brief, full };

// What was typed, checked against the command's table.
class Arguments {
 public:
  Help help = Help::none;  // asked for with -h or --help: nothing else was checked
  std::string argument;    // of Command::argument

  // By the flag's name; a name that the table does not have, or one of another kind, is a bug. Absent flags give their default.
  bool given(std::string_view name) const;
  const std::string& typed(std::string_view name) const { return values_.at(name); }  // of a flag that was given
  bool toggle(std::string_view name) const;
  std::string text(std::string_view name) const;                // text or choice
  std::vector<std::string> words(std::string_view name) const;  // separated by commas
  i64 integer(std::string_view name) const;
  double real(std::string_view name) const;

 private:
  friend Arguments parse_arguments(const Command&, std::span<const std::string>);
  const Flag& flag(std::string_view name, FlagKind kind) const;
  std::span<const Flag> flags_;
  std::map<std::string_view, std::string> values_;  // of the flags that were given
};

// Throws Error{usage}: an unknown option, with the nearest one; a value missing, not a number, out of range or not among the
// choices; an argument missing or too many.
Arguments parse_arguments(const Command& command, std::span<const std::string> args);

// brief: a line a flag. full: defaults and an example for each as well.
std::string help_text(const Command& command, Help help);

// " (did you mean quantize?)", or nothing if no word is near.
std::string did_you_mean(std::string_view typed, std::span<const std::string_view> words);

}  // namespace signround
