// What the commands share about the terminal: stdout carries results alone, stderr notes, SIGINT and SIGTERM ask to stop.
#pragma once
#include <atomic>
#include <string>
#include <string_view>

#include "io/json.h"

namespace signround {

// To stdout. Throws Error{io} when it cannot be written; a reader that went away (`| head`) ends the program as SIGPIPE does.
void put(std::string_view text);
void put_json(const Json& json);  // indented, with a newline
void flush_output();

// One line to stderr; that nobody reads it is no error.
void note(std::string_view line);

// Line breaks and other control characters of a message (they may come from file names) become spaces.
std::string one_line(std::string_view text);

// From the first call on SIGINT and SIGTERM set the flag; one more, a second or two later, ends the program at once.
const std::atomic<bool>& watch_signals();
void stop_if_cancelled();  // throws Error{interrupted} if the flag is set

// "12.3 MB", "1.2 GB"; "3m 05s", "1.2 s".
std::string human_bytes(i64 bytes);
std::string human_seconds(double seconds);

// printf's %.*g and %.*f.
std::string general(double x, int digits);
std::string fixed(double x, int decimals);

}  // namespace signround
