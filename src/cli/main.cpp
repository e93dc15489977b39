// The program's rim: picks the verb, turns whatever went wrong into one line and an exit code.
#include <csignal>
#include <cstdio>
#include <new>
#include <span>
#include <string>
#include <system_error>
#include <vector>

#include "base/error.h"
#include "cli/console.h"
#include "cli/help.h"

namespace signround {
namespace {

// A word as a shell reads it back.
std::string shell_word(const std::string& word) {
  constexpr std::string_view kPlain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_=+./,:@%";
  if (!word.empty() && word.find_first_not_of(kPlain) == std::string::npos) return word;
  std::string quoted = "'";
  for (const char c : word) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}

void run(std::span<const std::string> args) {
  if (args.empty()) fail(ErrorKind::usage, "no command; signround help lists them");
  const std::string& verb = args[0];
  if (verb == "--version") return put(cat("signround ", kVersion, "\n"));
  if (verb == "help" || verb == "-h" || verb == "--help") {
    check(args.size() <= 2, ErrorKind::usage, "help takes one topic, but got ", args[1], " and ", args[args.size() - 1]);
    return put(args.size() == 2 ? help_on(args[1]) : overview());
  }
  const Command& command = command_named(verb);
  const Arguments parsed = parse_arguments(command, args.subspan(1));
  if (parsed.help != Help::none) return put(help_text(command, parsed.help));
  command.run(parsed);
}

int report(ErrorKind kind, const std::string& message) {
  note("error: " + one_line(message));
  return static_cast<int>(kind);
}

int guarded_main(const std::vector<std::string>& words) {
  try {
    run(std::span(words).subspan(words.empty() ? 0 : 1));
    flush_output();
    return 0;
  } catch (const Error& e) {
    if (e.kind != ErrorKind::interrupted) return report(e.kind, e.message);
    std::string again;
    for (const std::string& word : words) again += " " + shell_word(word);
    return report(e.kind, e.message + "; to run it again:" + again);
  } catch (const std::bad_alloc&) {
    return report(ErrorKind::out_of_memory, "out of memory");
  } catch (const std::system_error& e) {  // the file system's among them
    return report(ErrorKind::io, e.what());
  } catch (const std::exception& e) {
    return report(ErrorKind::bug, cat("this is a bug in signround: ", e.what()));
  } catch (...) {
    return report(ErrorKind::bug, "this is a bug in signround: an exception of unknown type");
  }
}

}  // namespace
}  // namespace signround

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);  // progress that nobody reads must not end a run; put() looks after stdout
  return signround::guarded_main({argv, argv + argc});
}
