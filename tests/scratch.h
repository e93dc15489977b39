// For tests of files: a directory that lives as long as the test, and what an expected Error says.
#pragma once
#include <doctest/doctest.h>

#include <cstdlib>
#include <string>

#include "io/file.h"

namespace signround {

struct TempDir {
  Path path;

  TempDir() {
    std::string pattern = (std::filesystem::temp_directory_path() / "signround-test-XXXXXX").string();
    REQUIRE(::mkdtemp(pattern.data()) != nullptr);
    path = pattern;
  }
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
  TempDir(const TempDir&) = delete;
  Path operator/(const Path& name) const { return path / name; }
};

// The message of the Error of that kind that f throws, "" if it throws none.
template <class F>
std::string error_of(ErrorKind kind, F f) {
  try {
    f();
  } catch (const Error& e) {
    INFO(e.message);
    CHECK(e.kind == kind);
    CHECK(e.message.find('\n') == std::string::npos);
    return e.message;
  }
  return "";
}

template <class F>
std::string error_of(F f) {
  return error_of(ErrorKind::bad_input, f);
}

inline bool contains(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

}  // namespace signround
