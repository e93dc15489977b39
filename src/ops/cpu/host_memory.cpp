#include "ops/cpu/host_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <limits>
#include <string>

#include "base/memory.h"
#include "base/threads.h"

namespace signround {
namespace {

constexpr i64 kUnlimited = std::numeric_limits<i64>::max();

// The number after `key` at the start of a line of a file of the kernel; none if there is no such line or no number.
std::optional<i64> number_in(const std::string& path, std::string_view key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);)
    if (line.compare(0, key.size(), key) == 0) {
      const char* digits = line.c_str() + key.size();
      char* end = nullptr;
      const long long n = std::strtoll(digits, &end, 10);
      if (end != digits && n >= 0) return n;
    }
  return std::nullopt;
}

// Limit and use of one control group: file names differ between the two versions of the kernel's interface.
i64 left_in_group(const std::string& folder, const char* limit, const char* used, std::string_view reclaimable) {
  const std::optional<i64> most = number_in(folder + limit, ""), now = number_in(folder + used, "");
  if (!most || !now) return kUnlimited;  // "max", or no such group
  return std::max<i64>(0, *most - *now + number_in(folder + "/memory.stat", reclaimable).value_or(0));
}

// A limit holds for the whole tree below it: the group of this process and all above.
i64 left_in_groups() {
  i64 left = kUnlimited;
  std::ifstream file("/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {  // 0::/path, or N:controllers:/path
    const size_t first = line.find(':'), second = first == line.npos ? first : line.find(':', first + 1);
    if (second == line.npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const bool unified = controllers.empty();
    if (!unified && controllers != "memory") continue;
    for (std::string path = line.substr(second + 1);; path.resize(path.rfind('/'))) {
      if (path == "/") path.clear();
      left = std::min(left, unified ? left_in_group("/sys/fs/cgroup" + path, "/memory.max", "/memory.current", "inactive_file ")
                                    : left_in_group("/sys/fs/cgroup/memory" + path, "/memory.limit_in_bytes",
                                                    "/memory.usage_in_bytes", "total_inactive_file "));
      if (path.find('/') == path.npos) break;
    }
  }
  return left;
}

}  // namespace

i64 free_host_bytes() {
  return std::min(number_in("/proc/meminfo", "MemAvailable:").value_or(kUnlimited >> 10) << 10, left_in_groups());
}

i64 total_host_bytes() { return number_in("/proc/meminfo", "MemTotal:").value_or(0) << 10; }

void* allocate_host(i64 bytes, std::string_view what) {
  constexpr i64 kHugePage = 1 << 21;
  const i64 free = free_host_bytes();
  check(bytes <= free, ErrorKind::out_of_memory, "out of memory: ", what, " needs ", bytes, " bytes, ", free, " are free");
  const i64 alignment = bytes >= 2 * kHugePage ? kHugePage : kAlignment;
  const i64 whole = (bytes + alignment - 1) / alignment * alignment;
  void* data = std::aligned_alloc(static_cast<size_t>(alignment), static_cast<size_t>(whole));
  check(data != nullptr, ErrorKind::out_of_memory, "out of memory: ", what, " needs ", bytes, " bytes, ", free, " are free");
  if (alignment == kHugePage) madvise(data, static_cast<size_t>(bytes), MADV_HUGEPAGE);  // a hint: its failure costs only time
  parallel_ranges(bytes, 1 << 24, [&](i64 first, i64 last) {  // the kernel hands out pages when they are first written
    std::memset(static_cast<char*>(data) + first, 0, static_cast<size_t>(last - first));
  });
  return data;
}

void release_host(void* data) noexcept { std::free(data); }

}  // namespace signround
