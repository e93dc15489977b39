#include "cli/console.h"

#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <ctime>

#include "base/error.h"

namespace signround {
namespace {

std::atomic<bool> cancelled = false;
static_assert(std::atomic<bool>::is_always_lock_free);  // or a signal handler could not set it

// `timeout` and others send a signal to the program and then once more to its group: what follows at once is the same request.
void ask_to_stop(int signal) {
  static volatile std::sig_atomic_t first = 0;  // the second of the clock at the first signal
  timespec now = {};
  clock_gettime(CLOCK_MONOTONIC, &now);
  const std::sig_atomic_t second = static_cast<std::sig_atomic_t>(now.tv_sec);
  if (!cancelled) {
    first = second;
    cancelled = true;
  } else if (second > first + 1) {
    std::signal(signal, SIG_DFL);
    std::raise(signal);
  }
}

void check_output(bool ok) {
  if (ok) return;
  const int reason = errno;
  if (reason == EPIPE) {
    std::signal(SIGPIPE, SIG_DFL);
    std::raise(SIGPIPE);
  }
  fail(ErrorKind::io, "stdout: ", std::strerror(reason), "; the result is incomplete");
}

std::string number_text(double x, std::chars_format format, int digits) {
  char buffer[400];  // the longest double in fixed notation has 309 digits before the point
  return {buffer, std::to_chars(buffer, buffer + sizeof buffer, x, format, digits).ptr};
}

}  // namespace

void put(std::string_view text) { check_output(std::fwrite(text.data(), 1, text.size(), stdout) == text.size()); }

void put_json(const Json& json) { put(to_text(json, 2) + "\n"); }

void flush_output() { check_output(std::fflush(stdout) == 0); }

void note(std::string_view line) {
  const std::string text = std::string(line) + "\n";
  std::fwrite(text.data(), 1, text.size(), stderr);
}

std::string one_line(std::string_view text) {
  std::string line(text);
  for (char& c : line)
    if (static_cast<u8>(c) < 0x20 || c == 0x7F) c = ' ';
  return line;
}

const std::atomic<bool>& watch_signals() {
  struct sigaction action = {};
  action.sa_handler = ask_to_stop;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  return cancelled;
}

void stop_if_cancelled() { check(!cancelled, ErrorKind::interrupted, "stopped on request"); }

std::string human_bytes(i64 bytes) {
  static constexpr const char* kUnits[] = {"B", "kB", "MB", "GB", "TB"};
  double x = static_cast<double>(bytes);
  size_t unit = 0;
  for (; x >= 999.95 && unit + 1 < std::size(kUnits); ++unit) x /= 1000;
  return cat(fixed(x, unit == 0 ? 0 : 1), " ", kUnits[unit]);
}

std::string human_seconds(double seconds) {
  if (seconds < 99.95) return fixed(seconds, 1) + " s";
  const i64 s = static_cast<i64>(seconds + 0.5);
  const auto two = [](i64 n) { return (n < 10 ? "0" : "") + std::to_string(n); };
  return s < 3600 ? cat(s / 60, "m ", two(s % 60), "s") : cat(s / 3600, "h ", two(s / 60 % 60), "m");
}

std::string general(double x, int digits) { return number_text(x, std::chars_format::general, digits); }

std::string fixed(double x, int decimals) { return number_text(x, std::chars_format::fixed, decimals); }

}  // namespace signround
