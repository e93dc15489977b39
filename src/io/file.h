// Files and directories: system calls whose every failure becomes an Error that names the path.
// Kinds: a path to read that does not exist or is no file is bad_input; whatever the system refuses or fails to do is io.
// Files are read, never mapped: a mapped file that shrinks would kill the process.
#pragma once
#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/dtype.h"
#include "base/error.h"

namespace signround {

class Json;
using Path = std::filesystem::path;

// An open file, closed by the destructor. Reads and writes name their offset, so threads may share one.
class File {
 public:
  static File open(const Path& path);            // to read
  static File create(const Path& path);          // to write; an existing file is emptied
  static File open_directory(const Path& path);  // to sync
  ~File();
  File(File&& other) noexcept : fd_(std::exchange(other.fd_, -1)), path_(std::move(other.path_)) {}
  File& operator=(File&&) = delete;

  const Path& path() const { return path_; }
  u64 size() const;
  void read(u64 offset, std::span<std::byte> out) const;  // all of out; Error{io} if the file ends before
  void write(u64 offset, std::span<const std::byte> bytes);
  void reserve(u64 bytes);  // makes the file so large, on the disk too where the file system can: no space shows now, not later
  void sync();
  bool try_lock();  // exclusive among processes until closed; false if another holds it

 private:
  File(int fd, Path path) : fd_(fd), path_(std::move(path)) {}
  int fd_;
  Path path_;
};

std::string read_file(const Path& path, u64 limit);  // Error{bad_input} if larger than limit bytes
Json read_json(const Path& path);                    // errors begin with the path
void write_file(const Path& path, std::string_view content);
void copy_bytes(const Path& from, const Path& to);
// The file has either its old content or all of the new one, at whatever moment the machine stops.
void write_file_atomically(const Path& path, std::string_view content);

bool path_exists(const Path& path);  // a dangling link exists too, so that opening it is an error and not a silence
bool is_folder(const Path& path);    // links followed
std::vector<Path> list_directory(const Path& path);  // sorted
void make_directories(const Path& path);             // those that do not exist
void rename_path(const Path& from, const Path& to);
void remove_tree(const Path& path);     // symbolic links are removed, not followed
void sync_directory(const Path& path);  // what was created, renamed and removed in it
void sync_tree(const Path& path);       // every file and directory in it, and itself

// For tests: called before each operation that changes the disk ("write", "sync", "rename", ...). A result other than 0 is taken
// for the errno of that operation, which is then not done. Null: no hook. Returns the previous one.
using FaultHook = int (*)(std::string_view operation);
FaultHook set_fault_hook(FaultHook hook);

}  // namespace signround
