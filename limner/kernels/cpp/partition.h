// How kernels divide columns among threads.
#pragma once
#include "pool.h"
#include "simd.h"

namespace limner {

// This thread's blocks of 16 columns, the last of which may be partly or wholly past the end. They
// are dealt in pairs, so that a product may work on two at a time, and in the same way to every
// kernel with that many columns.
inline Range share_columns(const Worker& worker, int64_t columns) {
  const Range pairs = worker.share(blocks_of(columns, 2 * kLanes));
  return {2 * pairs.begin, 2 * pairs.end};
}

}  // namespace limner
