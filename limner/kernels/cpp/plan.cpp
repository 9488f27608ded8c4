#include "plan.h"

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
  size_t kept = 0;
  for (const Quantised& known : quantised_) {
    if (!overlap(known.input, known.bytes, access.begin, access.bytes)) quantised_[kept++] = known;
  }
  quantised_.resize(kept);
}

void Plan::run(size_t first) {
  Pool& threads = pool();
  Part part{records_.data() + first, records_.data() + records_.size(), &threads};
  if (part.begin != part.end) threads.run(run_part, &part);
}

void* Plan::find_quantised(const void* input, int64_t rows, int64_t columns, int64_t stride) const {
  for (const Quantised& known : quantised_) {
    if (known.input == input && known.rows == rows && known.columns == columns &&
        known.stride == stride) {
      return known.tiles;
    }
  }
  return nullptr;
}

void* Plan::allocate(size_t bytes) {
  buffers_.emplace_back();
  return buffers_.back().reserve(bytes);
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
