#include "io/file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <system_error>
#include <utility>
#include <vector>

#include "io/json.h"

namespace signround {

namespace {

std::atomic<FaultHook> fault_hook = nullptr;

constexpr ssize_t kStartedAtOnce = 1 << 16;  // bytes: less would begin the same page of the disk again and again

[[noreturn]] void fail_system(const Path& path, std::string_view operation, int error, u64 bytes = 0) {
  const std::string reason = std::generic_category().message(error);
  if (error != ENOSPC && error != EDQUOT) fail(ErrorKind::io, path.string(), ": cannot ", operation, ": ", reason);
  struct statvfs disk = {};
  const bool known = ::statvfs(path.c_str(), &disk) == 0 || ::statvfs(path.parent_path().c_str(), &disk) == 0;
  const std::string free = known ? cat(", ", u64{disk.f_bavail} * disk.f_frsize, " are free") : "";
  fail(ErrorKind::io, path.string(), ": cannot ", operation, ": ", reason, " (", bytes, " bytes needed", free,
       "); free some space or write to another disk");
}

// Runs a system call that changes the disk and reports failure by a negative result and errno; repeats it if a signal interrupts.
template <class Call>
auto changing(const Path& path, std::string_view operation, u64 bytes, Call call) {
  const FaultHook hook = fault_hook;
  if (const int error = hook ? hook(operation) : 0) fail_system(path, operation, error, bytes);
  for (;;) {
    const auto result = call();
    if (result >= 0) return result;
    if (errno != EINTR) fail_system(path, operation, errno, bytes);
  }
}

// For std::filesystem's functions, which report failure by an error code.
template <class Call>
void changing_tree(const Path& path, std::string_view operation, Call call) {
  changing(path, operation, 0, [&] {
    std::error_code error;
    call(error);
    errno = error.value();
    return error ? -1 : 0;
  });
}

}  // namespace

FaultHook set_fault_hook(FaultHook hook) { return fault_hook.exchange(hook); }

File File::open(const Path& path) {
  // Non-blocking, so that a pipe is refused below instead of waited for; it means nothing to a regular file.
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0 && (errno == ENOENT || errno == ENOTDIR)) fail(ErrorKind::bad_input, path.string(), ": no such file");
  if (fd < 0) fail_system(path, "open", errno);
  File file(fd, path);
  struct stat status = {};
  if (::fstat(fd, &status) != 0) fail_system(path, "examine", errno);
  check(S_ISREG(status.st_mode), ErrorKind::bad_input, path.string(), ": is ",
        S_ISDIR(status.st_mode) ? "a directory" : "no regular file", ", a file is needed");
  return file;
}

File File::create(const Path& path) {
  const int fd =
      changing(path, "create", 0, [&] { return ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666); });
  return File(fd, path);
}

File File::open_directory(const Path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) fail_system(path, "open", errno);
  return File(fd, path);
}

File::~File() {
  if (fd_ >= 0) ::close(fd_);
}

u64 File::size() const {
  struct stat status = {};
  if (::fstat(fd_, &status) != 0) fail_system(path_, "examine", errno);
  return static_cast<u64>(status.st_size);
}

void File::read(u64 offset, std::span<std::byte> out) const {
  while (!out.empty()) {
    const ssize_t n = ::pread(fd_, out.data(), out.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail_system(path_, "read", errno);
    check(n > 0, ErrorKind::io, path_.string(), ": ends at byte ", offset, ", ", out.size(),
          " more were expected; was it cut while in use?");
    offset += static_cast<u64>(n);
    out = out.subspan(static_cast<std::size_t>(n));
  }
}

void File::write(u64 offset, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t n = changing(path_, "write", bytes.size(),
                               [&] { return ::pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(offset)); });
    // On its way to the disk now, so that sync() has little left to wait for. A hint: what fails here fails there.
    if (n >= kStartedAtOnce) ::sync_file_range(fd_, static_cast<off_t>(offset), n, SYNC_FILE_RANGE_WRITE);
    offset += static_cast<u64>(n);
    bytes = bytes.subspan(static_cast<std::size_t>(n));
  }
}

void File::reserve(u64 bytes) {
  if (bytes == 0) return;
  changing(path_, "reserve", bytes, [&] {
    const int result = ::fallocate(fd_, 0, 0, static_cast<off_t>(bytes));
    return result != 0 && (errno == EOPNOTSUPP || errno == ENOSYS) ? ::ftruncate(fd_, static_cast<off_t>(bytes)) : result;
  });
}

void File::sync() {
  changing(path_, "sync", 0, [&] { return ::fsync(fd_); });
}

bool File::try_lock() {
  if (::flock(fd_, LOCK_EX | LOCK_NB) == 0) return true;
  if (errno != EWOULDBLOCK) fail_system(path_, "lock", errno);
  return false;
}

std::string read_file(const Path& path, u64 limit) {
  const File file = File::open(path);
  const u64 size = file.size();
  check(size <= limit, ErrorKind::bad_input, path.string(), ": has ", size, " bytes, the limit is ", limit);
  std::string content(size, '\0');
  file.read(0, std::as_writable_bytes(std::span(content)));
  return content;
}

Json read_json(const Path& path) {
  const std::string content = read_file(path, kMaxJsonBytes);
  return within(path.string(), [&] { return parse_json(content); });
}

void write_file(const Path& path, std::string_view content) { File::create(path).write(0, std::as_bytes(std::span(content))); }

void copy_bytes(const Path& from, const Path& to) {
  const File source = File::open(from);
  File target = File::create(to);
  const u64 size = source.size();
  target.reserve(size);
  std::vector<std::byte> buffer(std::size_t{1} << 20);
  for (u64 done = 0; done < size;) {
    const std::span<std::byte> part(buffer.data(), std::min<u64>(buffer.size(), size - done));
    source.read(done, part);
    target.write(done, part);
    done += part.size();
  }
}

void write_file_atomically(const Path& path, std::string_view content) {
  Path temporary = path;
  temporary += ".tmp";
  try {
    File file = File::create(temporary);
    file.write(0, std::as_bytes(std::span(content)));
    file.sync();
    rename_path(temporary, path);
  } catch (...) {
    std::error_code ignored;
    std::filesystem::remove(temporary, ignored);
    throw;
  }
  sync_directory(path.has_parent_path() ? path.parent_path() : ".");
}

bool path_exists(const Path& path) {
  std::error_code error;
  return std::filesystem::exists(std::filesystem::symlink_status(path, error));
}

bool is_folder(const Path& path) {
  std::error_code error;
  return std::filesystem::is_directory(path, error);
}

std::vector<Path> list_directory(const Path& path) {
  std::error_code error;
  std::vector<Path> entries;
  for (std::filesystem::directory_iterator i(path, error), end; !error && i != end; i.increment(error))
    entries.push_back(i->path());
  if (error) fail_system(path, "list", error.value());
  std::sort(entries.begin(), entries.end());
  return entries;
}

void make_directories(const Path& path) {
  changing_tree(path, "create directory", [&](std::error_code& error) { std::filesystem::create_directories(path, error); });
}

void rename_path(const Path& from, const Path& to) {
  changing_tree(to, "rename", [&](std::error_code& error) { std::filesystem::rename(from, to, error); });
}

void remove_tree(const Path& path) {
  changing_tree(path, "remove", [&](std::error_code& error) { std::filesystem::remove_all(path, error); });
}

void sync_directory(const Path& path) { File::open_directory(path).sync(); }

void sync_tree(const Path& path) {
  for (const Path& entry : list_directory(path)) {
    if (is_folder(entry)) {
      sync_tree(entry);
    } else {
      File::open(entry).sync();
    }
  }
  sync_directory(path);
}

}  // namespace signround
