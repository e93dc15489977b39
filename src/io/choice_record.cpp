#include "io/choice_record.h"

#include <chrono>
#include <cstdlib>
#include <thread>

namespace signround {
namespace {

constexpr std::string_view kTitle = "signround: choices made by measuring, 1";
constexpr u64 kLimit = u64{16} << 20;

// Waits for its turn among processes, but not for ever: who is stopped while it holds the lock must not stop others.
void wait_for(File& lock) {
  for (int tries = 0; tries < 200 && !lock.try_lock(); ++tries) std::this_thread::sleep_for(std::chrono::milliseconds(5));
}

}  // namespace

ChoiceRecord::ChoiceRecord(Path path) : path_(std::move(path)) {
  if (path_.empty()) return;
  try {
    read();
  } catch (const Error& e) {
    trouble_ = e.message;
  }
}

void ChoiceRecord::read() {
  if (!path_exists(path_)) return;
  const std::string text = read_file(path_, kLimit);
  std::string_view rest = text;
  const auto next_line = [&] {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(rest.size(), line.size() + 1));
    return line;
  };
  if (rest.empty()) return;
  check(next_line() == kTitle, ErrorKind::bad_input, path_.string(), " is no record of choices: remove it, or name another file");
  while (!rest.empty()) {
    const std::string_view line = next_line();
    const size_t tab = line.find('\t');
    const bool choice = tab != line.npos && tab > 0 && tab + 1 < line.size() && line.find('\t', tab + 1) == line.npos;
    if (choice) choices_.insert_or_assign(std::string(line.substr(0, tab)), std::string(line.substr(tab + 1)));
  }
}

const std::string* ChoiceRecord::find(const std::string& what) const {
  const auto found = choices_.find(what);
  return found == choices_.end() ? nullptr : &found->second;
}

const std::string* ChoiceRecord::settle(const std::string& what, const std::string& how) {
  if (!keeps()) return nullptr;
  try {
    if (path_.has_parent_path()) make_directories(path_.parent_path());
    const auto beside = [&](const char* ending) { return Path(path_) += ending; };
    File lock = File::create(beside(".lock"));
    wait_for(lock);
    read();  // what others settled meanwhile counts
    if (const std::string* theirs = find(what)) return theirs;
    choices_[what] = how;
    std::string text = cat(kTitle, '\n');
    for (const auto& [done, way] : choices_) text += cat(done, '\t', way, '\n');
    write_file(beside(".new"), text);
    rename_path(beside(".new"), path_);
  } catch (const Error& e) {
    trouble_ = e.message;
    return nullptr;
  }
  return find(what);
}

Path plans_path() {
  const auto variable = [](const char* name) { return std::getenv(name); };
  if (const char* named = variable("SIGNROUND_PLANS")) return named;
  if (const char* cache = variable("XDG_CACHE_HOME"); cache && *cache) return Path(cache) / "signround" / "plans";
  if (const char* home = variable("HOME"); home && *home) return Path(home) / ".cache" / "signround" / "plans";
  return {};
}

}  // namespace signround
