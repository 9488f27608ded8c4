#include "pool.h"

#include <chrono>
#include <cstdlib>

#if defined(__linux__)
#include <pthread.h>
#include <sched.h>
#endif
#if !defined(_WIN32)
#include <unistd.h>
#endif

namespace limner {
namespace {

// Long enough to bridge the gap between two kernels and the imbalance within one, short enough that
// a waiting thread does not keep a processor from a process that has work.
constexpr std::chrono::microseconds kSpin{100};

inline void pause() {
#if defined(__x86_64__) || defined(_M_X64)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("isb");  // "yield" does nothing on most cores; isb waits some tens of cycles
#endif
}

// The processors this process may run on, in order; empty where the system does not say.
std::vector<int> processors() {
  std::vector<int> found;
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) {
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
      if (CPU_ISSET(cpu, &set)) found.push_back(cpu);
    }
  }
#endif
  return found;
}

int processor_count() {
  const int listed = static_cast<int>(processors().size());
  const int known = listed > 0 ? listed : static_cast<int>(std::thread::hardware_concurrency());
  // What a user says to all libraries that compute: several processes then share a machine.
  const char* asked = std::getenv("OMP_NUM_THREADS");
  const int most = asked != nullptr ? std::atoi(asked) : 0;
  if (most > 0 && most < known) return most;
  return known > 0 ? known : 1;
}

void pin_thread(std::thread& thread, int processor) {
#if defined(__linux__)
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(processor, &set);
  // Refused in some containers; the thread then runs wherever the system puts it.
  pthread_setaffinity_np(thread.native_handle(), sizeof set, &set);
#else
  (void)thread;
  (void)processor;
#endif
}

long process() {
#if defined(_WIN32)
  return 0;
#else
  return static_cast<long>(getpid());
#endif
}

}  // namespace

void Signal::advance() {
  value_.fetch_add(1, std::memory_order_seq_cst);
  if (sleepers_.load(std::memory_order_seq_cst) == 0) return;
  // The lock makes sure that a thread which saw the old value is asleep by now, not about to be.
  { std::lock_guard<std::mutex> lock(mutex_); }
  changed_.notify_all();
}

void Signal::wait_while(uint32_t old) {
  const auto end = std::chrono::steady_clock::now() + kSpin;
  do {
    for (int i = 0; i < 64; i++) {
      if (value_.load(std::memory_order_acquire) != old) return;
      pause();
    }
  } while (std::chrono::steady_clock::now() < end);
  std::unique_lock<std::mutex> lock(mutex_);
  sleepers_.fetch_add(1, std::memory_order_seq_cst);
  changed_.wait(lock, [&] { return value_.load(std::memory_order_seq_cst) != old; });
  sleepers_.fetch_sub(1, std::memory_order_seq_cst);
}

Pool::Pool(int threads, bool pin) : workers_(static_cast<size_t>(threads)) {
  for (int i = 0; i < threads; i++) {
    workers_[static_cast<size_t>(i)].index = i;
    workers_[static_cast<size_t>(i)].count = threads;
  }
  const std::vector<int> available = processors();
  for (int i = 1; i < threads; i++) {
    threads_.emplace_back([this, i] { serve(i); });
    if (pin && threads <= static_cast<int>(available.size())) {
      pin_thread(threads_.back(), available[static_cast<size_t>(i)]);
    }
  }
}

Pool::~Pool() {
  stopping_.store(true);
  started_.advance();
  for (std::thread& thread : threads_) thread.join();
}

void Pool::serve(int index) {
  // Not read from started_: a job may have been posted before this thread got going.
  for (uint32_t seen = 0;; seen++) {
    started_.wait_while(seen);
    if (stopping_.load()) return;
    job_(context_, workers_[static_cast<size_t>(index)]);
    meet();
  }
}

void Pool::run(Job job, void* context) {
  if (threads_.empty()) return job(context, workers_[0]);
  job_ = job;
  context_ = context;
  started_.advance();
  job(context, workers_[0]);
  meet();
}

void Pool::meet() {
  const int all = threads();
  if (all == 1) return;
  const uint32_t round = met_.value();
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) == all - 1) {
    arrived_.store(0, std::memory_order_relaxed);
    met_.advance();
  } else {
    met_.wait_while(round);
  }
}

namespace {
std::mutex pool_mutex;
Pool* current_pool = nullptr;
long pool_owner = 0;
}  // namespace

Pool& pool() {
  std::lock_guard<std::mutex> lock(pool_mutex);
  // After a fork the child has none of the threads: it leaves the parent's pool alone, makes its own.
  if (current_pool == nullptr || pool_owner != process()) {
    current_pool = new Pool(processor_count(), true);
    pool_owner = process();
  }
  return *current_pool;
}

void set_pool(int threads, bool pin) {
  std::lock_guard<std::mutex> lock(pool_mutex);
  if (current_pool != nullptr && pool_owner == process()) {
    // Waits for the job in flight; callers must not submit another meanwhile.
    { std::lock_guard<std::mutex> turn(current_pool->turn()); }
    delete current_pool;
  }
  current_pool = new Pool(threads > 0 ? threads : processor_count(), pin);
  pool_owner = process();
}

}  // namespace limner
