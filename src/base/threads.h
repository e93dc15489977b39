// A fixed pool of threads for the CPU kernels. Work is cut into tasks by the caller, in a way that does not depend on the
// number of threads; a task writes only what is its own, and sums that cross tasks are added up afterwards in task order. So
// results are the same for any number of threads.
#pragma once
#include <type_traits>

#include "base/dtype.h"

namespace signround {

// Threads that take part in parallel_for, the caller included. At first: the environment variable SIGNROUND_THREADS if it is set,
// else the processors this process may run on. Throws usage if the variable is not a number from 1 to kMaxThreads.
inline constexpr int kMaxThreads = 1024;
int thread_count();

// Changes it; not while parallel_for runs elsewhere. Throws usage outside 1..kMaxThreads.
void set_thread_count(int n);

// Runs task(context, i) for i = 0..n-1, each once, in no particular order, and returns when all are done. Idle threads take the
// next task, in increasing order. Called from within a task it runs serially. The first exception of a task is rethrown here;
// tasks not yet begun are then skipped.
void run_tasks(i64 n, void (*task)(void* context, i64 i), void* context);

// parallel_for(n, f): f(i) for i = 0..n-1. A start costs about a microsecond while the threads are awake (they spin briefly
// between calls before they sleep), so a task should last some ten microseconds or more.
template <class F>
void parallel_for(i64 n, F&& f) {
  using Function = std::remove_reference_t<F>;
  run_tasks(n, [](void* context, i64 i) { (*static_cast<Function*>(context))(i); },
            const_cast<void*>(static_cast<const void*>(&f)));
}

// f(first, last) over [0, n) in ranges of `grain` (the last one shorter): range i begins at i * grain for any number of threads.
template <class F>
void parallel_ranges(i64 n, i64 grain, F&& f) {
  parallel_for((n + grain - 1) / grain, [&](i64 i) { f(i * grain, (i + 1) * grain < n ? (i + 1) * grain : n); });
}

// Working memory of this thread: at least `bytes`, aligned to 64, uninitialised, kept between calls and grown when needed (so
// nothing is allocated once sizes have been seen). Each slot is one buffer; a call for a slot ends the use of its former
// content. Throws out_of_memory.
enum class Scratch { shared_panels, own_panels, attention, count };
void* scratch(Scratch slot, i64 bytes);

}  // namespace signround
