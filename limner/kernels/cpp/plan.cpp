#include "plan.h"

#include <algorithm>

namespace limner {
namespace {

bool overlap(const void* a, int64_t a_bytes, const void* b, int64_t b_bytes) {
  const uintptr_t first = reinterpret_cast<uintptr_t>(a), second = reinterpret_cast<uintptr_t>(b);
  return first < second + static_cast<uintptr_t>(b_bytes) &&
         second < first + static_cast<uintptr_t>(a_bytes);
}

bool divided_alike(const Access& a, const Access& b) {
  return a.split == b.split && a.split != Split::kAny && a.units == b.units && a.begin == b.begin &&
         a.bytes == b.bytes;
}

bool conflict(const Access& a, const Access& b) {
  return (a.writes || b.writes) && overlap(a.begin, a.bytes, b.begin, b.bytes) &&
         !divided_alike(a, b);
}

struct Part {
  const Record* begin;
  const Record* end;
  Pool* pool;
};

void run_part(void* context, Worker& worker) {
  const Part& part = *static_cast<const Part*>(context);
  for (const Record* record = part.begin; record != part.end; record++) {
    // The first record follows the start of the region, which is a meeting already.
    if (record->meet_first && record != part.begin) part.pool->meet();
    record->run(record->arguments, worker);
  }
}

}  // namespace

bool Plan::note(const std::vector<Access>& accesses) {
  bool meet = false;
  for (const Access& access : accesses) {
    for (const Access& earlier : since_meeting_) meet = meet || conflict(access, earlier);
    if (access.writes) forget_overwritten(access);
  }
  if (meet) since_meeting_.clear();
  since_meeting_.insert(since_meeting_.end(), accesses.begin(), accesses.end());
  return meet;
}

void Plan::forget_overwritten(const Access& access) {
  const auto hit = [&](const void* data, int64_t bytes) {
    return overlap(data, bytes, access.begin, access.bytes);
  };
  const auto stale_tiles = [&](const KnownTiles& known) {
    const bool refilled = known.shared != nullptr && hit(known.shared, known.bytes);
    return refilled || hit(known.input.data, known.input.bytes());
  };
  const auto stale_norm = [&](const KnownNorm& known) {
    const int64_t bytes = known.input.count * known.input.columns * 4;
    return hit(known.input.data, known.input.bytes()) || hit(known.output, bytes);
  };
  tiles_.erase(std::remove_if(tiles_.begin(), tiles_.end(), stale_tiles), tiles_.end());
  norms_.erase(std::remove_if(norms_.begin(), norms_.end(), stale_norm), norms_.end());
}

void ThreadMemory::reserve(int threads) {
  if (threads <= threads_) return;
  data_ = static_cast<unsigned char*>(buffer_.reserve(bytes_ * static_cast<size_t>(threads)));
  threads_ = threads;
}

void Plan::run(size_t first) {
  Pool& threads = pool();
  for (const auto& memory : thread_memory_) memory->reserve(threads.threads());
  Part part{records_.data() + first, records_.data() + records_.size(), &threads};
  if (part.begin != part.end) threads.run(run_part, &part);
}

const KnownTiles* Plan::find_tiles(const Rows& input, bool quantised) const {
  for (const KnownTiles& known : tiles_) {
    const Rows& rows = known.input;
    const bool enough = known.own == nullptr || known.own->threads() >= pool().threads();
    if (rows.data == input.data && rows.count == input.count && rows.columns == input.columns &&
        rows.stride == input.stride && known.quantised == quantised && enough) {
      return &known;
    }
  }
  return nullptr;
}

const KnownNorm* Plan::find_norm(const Rows& output) const {
  for (const KnownNorm& known : norms_) {
    if (known.output == output.data && known.input.count == output.count &&
        known.input.columns == output.columns && output.stride == output.columns) {
      return &known;
    }
  }
  return nullptr;
}

void* PlanMemory::allocate(size_t bytes) {
  size_t size = 64;
  while (size < bytes) size *= 2;
  Ring& ring = rings_[size];
  if (ring.buffers.size() <= kOthers) {
    ring.buffers.emplace_back();
    return ring.buffers.back().reserve(size);
  }
  Buffer& oldest = ring.buffers[ring.next];
  ring.next = (ring.next + 1) % ring.buffers.size();
  return oldest.reserve(size);
}

const ThreadMemory* Plan::allocate_for_threads(size_t bytes) {
  thread_memory_.push_back(std::make_unique<ThreadMemory>(bytes));
  thread_memory_.back()->reserve(pool().threads());
  return thread_memory_.back().get();
}

size_t Plan::meetings() const {
  size_t count = 0;
  for (const Record& record : records_) count += record.meet_first ? 1 : 0;
  return count;
}

Submission::Submission(Plan* capturing)
    : plan_(capturing != nullptr ? capturing : &own_),
      first_(plan_->size()),
      turn_(pool().turn()) {}

Submission::~Submission() { plan_->run(first_); }

void* Submission::between(size_t bytes) {
  return capturing() ? plan_->allocate(bytes) : pool().shared().reserve(bytes);
}

}  // namespace limner
