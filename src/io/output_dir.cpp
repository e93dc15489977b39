#include "io/output_dir.h"

#include <algorithm>
#include <system_error>

#include "io/json.h"

namespace signround {

namespace {

constexpr std::string_view kMarker = ".signround-partial";

// Absolute and without a slash at the end, so that OUT.partial is beside OUT and not in it.
Path resolved(const Path& out) {
  std::error_code error;
  const Path path = (std::filesystem::absolute(out, error) / "").lexically_normal().parent_path();
  check(!out.empty() && !error && path.has_filename(), ErrorKind::usage, "output ", quote(out.string()),
        ": is no name for a directory");
  return path;
}

Path beside(const Path& path, std::string_view ending) {
  Path result = path;
  result += ending;
  return result;
}

// Whether path is directory or lies in it, symbolic links resolved.
bool is_within(const Path& path, const Path& directory) {
  std::error_code error;
  const Path inner = std::filesystem::weakly_canonical(path, error), outer = std::filesystem::weakly_canonical(directory, error);
  return std::mismatch(outer.begin(), outer.end(), inner.begin(), inner.end()).first == outer.end();
}

}  // namespace

OutputDir::OutputDir(const Path& out, bool force, const Path& input)
    : out_(resolved(out)), partial_(beside(out_, ".partial")), replaced_(beside(out_, ".replaced")), force_(force) {
  if (path_exists(out_)) {
    check(force, ErrorKind::usage, out_.string(), ": exists; name another output or replace it with --force");
    check(is_folder(out_), ErrorKind::usage, out_.string(), ": is no directory; name another output");
    check(!is_within(input, out_), ErrorKind::usage, out_.string(), ": holds the model that is read; name another output");
    check(!path_exists(replaced_), ErrorKind::usage, replaced_.string(),
          ": is in the way of replacing the output; move or remove it");
  }
  claim_partial();
}

void OutputDir::claim_partial() {
  const Path marker = partial_ / kMarker;
  if (path_exists(partial_)) {
    const bool ours = path_exists(marker) || (is_folder(partial_) && list_directory(partial_).empty());
    check(ours, ErrorKind::usage, partial_.string(), ": was not left by an unfinished run; move or remove it");
    if (path_exists(marker)) {
      File old = File::open(marker);
      check(old.try_lock(), ErrorKind::usage, partial_.string(), ": another run is writing it");
      remove_tree(partial_);
    }
  }
  make_directories(partial_);
  try {
    marker_.emplace(File::create(marker));
  } catch (...) {
    std::error_code ignored;
    std::filesystem::remove(partial_, ignored);  // empty: it could not be told from a foreign directory later
    throw;
  }
  check(marker_->try_lock(), ErrorKind::usage, partial_.string(), ": another run is writing it");
}

OutputDir::~OutputDir() {
  std::error_code ignored;
  if (!committed_) std::filesystem::remove_all(partial_, ignored);
}

Path OutputDir::file(const Path& name) {
  const Path path = partial_ / name;
  if (name.has_parent_path()) make_directories(path.parent_path());
  return path;
}

void OutputDir::write(const Path& name, std::string_view content) { write_file(file(name), content); }
void OutputDir::copy(const Path& from, const Path& name) { copy_bytes(from, file(name)); }

void OutputDir::commit() {
  remove_tree(partial_ / kMarker);
  sync_tree(partial_);
  const bool replace = force_ && path_exists(out_);
  if (replace) rename_path(out_, replaced_);
  try {
    rename_path(partial_, out_);
  } catch (...) {
    std::error_code ignored;
    if (replace) std::filesystem::rename(replaced_, out_, ignored);
    throw;
  }
  committed_ = true;
  sync_directory(out_.parent_path());
  if (replace) remove_tree(replaced_);
}

}  // namespace signround
