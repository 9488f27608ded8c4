// A plan: kernels with their arguments, run in order inside one parallel region.
//
// Each kernel says which memory it reads and writes and how it divides that among threads. From this
// the plan knows where threads have to meet: only before a kernel that touches memory which another
// thread may have written, or may still be reading, since they last met.
#pragma once
#include <cstdint>
#include <cstring>
#include <map>
#include <type_traits>
#include <vector>

#include "pool.h"
#include "rows.h"

namespace limner {

// How a kernel divides a piece of memory among threads. Two kernels that divide the same memory in
// the same way into as many units leave each thread with what it wrote itself.
enum class Split : uint8_t {
  kAny,      // any thread may touch any part
  kRows,     // by rows: tokens
  kColumns,  // by blocks of 16 columns, all rows
  kHeads,    // by (row, head)
};

struct Access {
  const void* begin;
  int64_t bytes;
  bool writes;
  Split split = Split::kAny;
  int64_t units = 0;
};

inline Access reads(const void* p, int64_t bytes, Split split = Split::kAny, int64_t units = 0) {
  return {p, bytes, false, split, units};
}
inline Access writes(const void* p, int64_t bytes, Split split = Split::kAny, int64_t units = 0) {
  return {p, bytes, true, split, units};
}

// A kernel is a small struct of arguments with
//   void operator()(Worker&) const            this thread's share of the work
//   std::vector<Access> accesses() const      all memory that changes or is changed between kernels
struct Record {
  void (*run)(const void* arguments, Worker& worker);
  bool meet_first;
  alignas(16) unsigned char arguments[240];
};

// A piece of memory for each thread, where it leaves what only its own later kernels read.
class ThreadMemory {
 public:
  explicit ThreadMemory(size_t bytes) : bytes_((bytes + 63) / 64 * 64) {}
  // Makes room for so many threads; what was there is lost if there was less.
  void reserve(int threads);
  int threads() const { return threads_; }
  void* of(int thread) const { return data_ + static_cast<size_t>(thread) * bytes_; }

 private:
  size_t bytes_;
  int threads_ = 0;
  unsigned char* data_ = nullptr;
  Buffer buffer_;
};

// An input whose tiles are in this plan already, so that layers with one input share the work.
struct KnownTiles {
  Rows input;
  bool quantised;
  const void* shared;
  const ThreadMemory* own;
  int64_t bytes;
};

// Rows that were made by normalising others. To do it again takes less time than to wait for the
// thread that did.
struct KnownNorm {
  const float* output;
  Rows input;
  RowNorm norm;
};

// Memory for what one kernel hands to the next, also of several plans that never run at once. What
// was handed out is handed out again after some others of its size; a plan sees that as it sees
// results that are overwritten.
class PlanMemory {
 public:
  void* allocate(size_t bytes);

 private:
  static constexpr size_t kOthers = 3;
  struct Ring {
    std::vector<Buffer> buffers;
    size_t next = 0;  // to be handed out again
  };
  std::map<size_t, Ring> rings_;  // by size, rounded up to a power of two
};

class Plan {
 public:
  // With memory of its own unless it is given `memory`, which has to outlive it.
  explicit Plan(PlanMemory* memory = nullptr)
      : memory_(memory != nullptr ? memory : &own_memory_) {}
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;

  template <class Kernel>
  void append(const Kernel& kernel) {
    static_assert(sizeof(Kernel) <= sizeof(Record::arguments), "arguments do not fit a record");
    static_assert(std::is_trivially_copyable<Kernel>::value, "a record is copied byte by byte");
    Record record;
    record.run = [](const void* arguments, Worker& worker) {
      (*static_cast<const Kernel*>(arguments))(worker);
    };
    record.meet_first = note(kernel.accesses());
    std::memcpy(record.arguments, &kernel, sizeof kernel);
    records_.push_back(record);
  }

  // Runs records from `first` to the end on the pool's threads.
  void run(size_t first = 0);

  // The tiles of an input, and how its rows were made, if the plan knows it and it is still so.
  const KnownTiles* find_tiles(const Rows& input, bool quantised) const;
  void keep_tiles(const KnownTiles& known) { tiles_.push_back(known); }
  const KnownNorm* find_norm(const Rows& output) const;
  void keep_norm(const KnownNorm& known) { norms_.push_back(known); }

  void* allocate(size_t bytes) { return memory_->allocate(bytes); }
  // Memory that lives as long as the plan.
  const ThreadMemory* allocate_for_threads(size_t bytes);

  size_t size() const { return records_.size(); }
  size_t meetings() const;

 private:
  bool note(const std::vector<Access>& accesses);
  void forget_overwritten(const Access& access);

  std::vector<Record> records_;
  std::vector<Access> since_meeting_;
  std::vector<KnownTiles> tiles_;
  std::vector<KnownNorm> norms_;
  PlanMemory own_memory_;
  PlanMemory* memory_;
  std::vector<std::unique_ptr<ThreadMemory>> thread_memory_;
};

// Appends kernels to the plan being captured, or to one of its own when there is none, and runs what
// it appended when it goes out of scope.
class Submission {
 public:
  explicit Submission(Plan* capturing);
  ~Submission();
  Submission(const Submission&) = delete;
  Submission& operator=(const Submission&) = delete;

  template <class Kernel>
  void append(const Kernel& kernel) {
    plan_->append(kernel);
  }

  bool capturing() const { return plan_ != &own_; }
  Plan& plan() { return *plan_; }
  // Memory for what one kernel hands to the next.
  void* between(size_t bytes);

 private:
  Plan own_;
  Plan* plan_;
  size_t first_;
  std::unique_lock<std::mutex> turn_;
};

}  // namespace limner
