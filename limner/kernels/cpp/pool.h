// The one pool of threads that all kernels run on.
//
// The calling thread is worker 0 and works too. Threads that wait spin for a moment, because kernels
// follow one another within microseconds, and then sleep, so that a foreign process gets the
// processor instead of a spinning thread.
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace limner {

// Memory on a cache line boundary that grows when asked for more and is never shrunk.
class Buffer {
 public:
  Buffer() = default;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  Buffer(Buffer&& other) noexcept : memory_(other.memory_), size_(other.size_) {
    other.memory_ = nullptr;
    other.size_ = 0;
  }
  ~Buffer() { std::free(memory_); }

  // At least `bytes` bytes. What was there before is lost when it has to grow.
  void* reserve(size_t bytes) {
    if (bytes > size_) {
      std::free(memory_);
      size_ = (bytes + 63) / 64 * 64;
      memory_ = std::aligned_alloc(64, size_);
      if (memory_ == nullptr) std::abort();  // no exception may cross into Python
    }
    return memory_;
  }

 private:
  void* memory_ = nullptr;
  size_t size_ = 0;
};

struct Range {
  int64_t begin, end;
};

// What a kernel knows of the thread that runs it.
struct Worker {
  int index = 0;
  int count = 1;
  Buffer scratch;  // private to the thread, contents undefined at the start of a kernel

  // This thread's part of `units` equal pieces of work. Two kernels that divide the same number of
  // units give each thread the same part: no thread then reads what another wrote.
  Range share(int64_t units) const { return {units * index / count, units * (index + 1) / count}; }
};

// A number that only grows, and threads that wait for it to change.
class Signal {
 public:
  uint32_t value() const { return value_.load(std::memory_order_acquire); }
  void advance();
  void wait_while(uint32_t old);

 private:
  std::atomic<uint32_t> value_{0};
  std::atomic<int> sleepers_{0};
  std::mutex mutex_;
  std::condition_variable changed_;
};

using Job = void (*)(void* context, Worker& worker);

class Pool {
 public:
  // `pin` ties each thread but the caller's to one processor of those this process may use.
  Pool(int threads, bool pin);
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()); }

  // Runs `job` once on each thread and returns when all have finished. One job at a time: a second
  // caller waits for the first.
  void run(Job job, void* context);

  // Called by every thread of a job: none goes on before all have come.
  void meet();

  // Memory shared by the threads of the job now running.
  Buffer& shared() { return shared_; }
  std::mutex& turn() { return turn_; }

 private:
  void serve(int index);

  std::vector<Worker> workers_;
  std::vector<std::thread> threads_;
  std::mutex turn_;
  Buffer shared_;
  Job job_ = nullptr;
  void* context_ = nullptr;
  std::atomic<bool> stopping_{false};
  Signal started_;
  Signal met_;
  alignas(64) std::atomic<int> arrived_{0};
};

// The pool of this process, made on first use with a thread for each processor it may run on.
Pool& pool();
// Replaces it. Zero threads means one for each processor this process may run on.
void set_pool(int threads, bool pin);

}  // namespace limner
