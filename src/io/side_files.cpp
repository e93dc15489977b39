#include "io/side_files.h"

#include <algorithm>
#include <span>
#include <system_error>

namespace signround {
namespace {

// Beginnings of names, in small letters.
constexpr std::string_view kLicences[] = {"copying", "licence", "license", "notice"};
constexpr std::string_view kSideFiles[] = {
    "added_tokens.", "chat_template", "generation_config.", "merges.", "preprocessor_", "processor_", "special_tokens_map.",
    "spiece.",       "tekken.",       "tokenizer",          "vocab."};

bool begins_with_any(const Path& path, std::span<const std::string_view> starts) {
  std::string name = path.filename().string();
  for (char& c : name)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return std::any_of(starts.begin(), starts.end(), [&](std::string_view start) { return name.starts_with(start); });
}

}  // namespace

std::vector<Path> side_files(const Path& model, bool with_code) {
  std::vector<Path> found;
  if (!is_folder(model)) return found;
  for (const Path& path : list_directory(model)) {
    const bool code = path.extension() == ".py";
    const bool wanted = code ? with_code : begins_with_any(path, kSideFiles) || begins_with_any(path, kLicences);
    std::error_code unreadable;
    if (wanted && std::filesystem::is_regular_file(path, unreadable)) found.push_back(path);
  }
  return found;
}

std::vector<Path> licence_files(const Path& model) {
  std::vector<Path> found = side_files(model, false);
  std::erase_if(found, [](const Path& path) { return !begins_with_any(path, kLicences); });
  return found;
}

}  // namespace signround
