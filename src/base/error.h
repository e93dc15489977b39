// One error type for the whole program. It is thrown where the fault is found, with the values at hand; context (file, block,
// step) is prepended at the few boundaries that know it, by within(); main.cpp turns the kind into the exit code.
#pragma once
#include <exception>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>

namespace signround {

// The values are the exit codes of the command line.
enum class ErrorKind { bug = 1, usage = 2, bad_input = 3, io = 4, out_of_memory = 5, interrupted = 6, verification = 7 };

class Error : public std::exception {
 public:
  Error(ErrorKind kind, std::string message) : kind(kind), message(std::move(message)) {}
  const char* what() const noexcept override { return message.c_str(); }

  ErrorKind kind;
  std::string message;  // one line: what is wrong, where, what to do
};

// cat("row ", 3, " of ", name) -> "row 3 of ...".
template <class... Parts>
std::string cat(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return std::move(out).str();
}

template <class... Parts>
[[noreturn]] void fail(ErrorKind kind, const Parts&... parts) {
  throw Error(kind, cat(parts...));
}

// Stays on in release builds: everything that comes from outside is checked before it is used.
template <class... Parts>
inline void check(bool ok, ErrorKind kind, const Parts&... parts) {
  if (!ok) [[unlikely]] fail(kind, parts...);
}

// Runs f; an Error that leaves it gets "context: " in front of its message.
template <class F>
decltype(auto) within(std::string_view context, F&& f) {
  try {
    return std::forward<F>(f)();
  } catch (Error& e) {
    e.message = cat(context, ": ", e.message);
    throw;
  }
}

}  // namespace signround
