#include "base/threads.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "base/error.h"

namespace signround {
namespace {

thread_local bool inside_task = false;

void relax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// One job at a time. A thread enters the job while it is open and the caller, having run out of tasks, closes it and waits for
// those inside. A thread that the system has not woken in time is therefore not waited for.
class Pool {
 public:
  explicit Pool(int threads) {
    workers_.reserve(threads - 1);
    try {
      for (int i = 1; i < threads; ++i) workers_.emplace_back([this] { work(); });
    } catch (const std::system_error&) {
      // The system grants no more: fewer threads compute the same.
    }
  }
  ~Pool() {
    stop_ = true;
    announce();
    for (std::thread& t : workers_) t.join();
  }
  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  void run(i64 n, void (*task)(void*, i64), void* context) {
    const std::lock_guard one_job(jobs_);
    task_ = task, context_ = context, tasks_ = n;
    next_.store(0, std::memory_order_relaxed);
    entry_.store(kOpen);
    announce();
    take_tasks();
    entry_.fetch_and(~kOpen);
    for (int spins = 0; entry_.load(std::memory_order_acquire) != 0; ++spins)
      if (spins < kSpins) relax();
      else std::this_thread::yield();
    if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
  }

 private:
  static constexpr u32 kOpen = 1u << 31;  // the rest of entry_ counts the workers inside
  static constexpr int kSpins = 4000;     // some 50 to 100 microseconds

  void take_tasks() {
    inside_task = true;
    try {
      for (i64 i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < tasks_;) task_(context_, i);
    } catch (...) {
      next_.store(tasks_, std::memory_order_relaxed);
      const std::lock_guard lock(sleep_);
      if (!error_) error_ = std::current_exception();
    }
    inside_task = false;
  }

  // Sequentially consistent with the sleeper's order "count me, then look": one of the two sees the other.
  void announce() {
    epoch_.fetch_add(1);
    if (sleepers_.load() == 0) return;
    { const std::lock_guard lock(sleep_); }
    wake_.notify_all();
  }

  void work() {
    for (u32 seen = 0;;) {
      int spins = 0;
      while (epoch_.load() == seen && spins++ < kSpins) relax();
      if (epoch_.load() == seen) {
        std::unique_lock lock(sleep_);
        ++sleepers_;
        wake_.wait(lock, [&] { return epoch_.load() != seen; });
        --sleepers_;
      }
      seen = epoch_.load();
      if (stop_) return;
      u32 entry = entry_.load();
      while ((entry & kOpen) && !entry_.compare_exchange_weak(entry, entry + 1)) {}
      if (!(entry & kOpen)) continue;
      take_tasks();
      entry_.fetch_sub(1);
    }
  }

  std::mutex jobs_, sleep_;
  std::condition_variable wake_;
  std::vector<std::thread> workers_;
  void (*task_)(void*, i64) = nullptr;
  void* context_ = nullptr;
  i64 tasks_ = 0;
  std::exception_ptr error_;
  std::atomic<bool> stop_ = false;
  alignas(64) std::atomic<i64> next_ = 0;
  alignas(64) std::atomic<u32> epoch_ = 0;
  std::atomic<u32> entry_ = 0;
  std::atomic<int> sleepers_ = 0;
};

void check_count(i64 n, std::string_view where) {
  check(n >= 1 && n <= kMaxThreads, ErrorKind::usage, where, ": expected a number of threads from 1 to ", kMaxThreads);
}

int initial_threads() {
  if (const char* text = std::getenv("SIGNROUND_THREADS")) {
    int n = 0;
    const char* end = text + std::strlen(text);
    const std::from_chars_result r = std::from_chars(text, end, n);
    check_count(r.ec == std::errc{} && r.ptr == end ? n : 0, cat("SIGNROUND_THREADS=", text));
    return n;
  }
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) return CPU_COUNT(&allowed);
  return static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
}

std::unique_ptr<Pool>& pool() {
  static std::unique_ptr<Pool> p = std::make_unique<Pool>(initial_threads());
  return p;
}

struct FreeAligned {
  void operator()(void* p) const { ::operator delete(p, std::align_val_t{64}); }
};
struct ScratchBuffer {
  std::unique_ptr<void, FreeAligned> data;
  i64 bytes = 0;
};

}  // namespace

int thread_count() { return pool()->threads(); }

void set_thread_count(int n) {
  check_count(n, "threads");
  if (n != thread_count()) pool() = std::make_unique<Pool>(n);
}

void run_tasks(i64 n, void (*task)(void* context, i64 i), void* context) {
  if (n <= 0) return;
  Pool* p = inside_task || n == 1 ? nullptr : pool().get();
  if (p != nullptr && p->threads() > 1) return p->run(n, task, context);
  for (i64 i = 0; i < n; ++i) task(context, i);
}

void* scratch(Scratch slot, i64 bytes) {
  thread_local ScratchBuffer buffers[static_cast<int>(Scratch::count)];
  ScratchBuffer& b = buffers[static_cast<int>(slot)];
  if (bytes > b.bytes) {
    b.data.reset();
    b.bytes = 0;
    b.data.reset(::operator new(static_cast<std::size_t>(bytes), std::align_val_t{64}, std::nothrow));
    check(b.data != nullptr, ErrorKind::out_of_memory, "working memory of a CPU kernel: ", bytes, " bytes wanted");
    b.bytes = bytes;
  }
  return b.data.get();
}

}  // namespace signround
