// Attention of some query rows over one block of 64 keys.
//
// R query rows (the heads that share one key head, of one or more tokens), W width of a head.
// A block's positions are a multiple of 64 onwards, whatever the query, so a row's numbers do not
// depend on which other rows, or how many tokens, are worked on with it. Keys are interleaved by 16,
// in the cache or in scratch, so that 16 of them are scored at once without sums across lanes.
#pragma once
#include <cstdint>

#include "pool.h"
#include "simd.h"

namespace limner {

constexpr int64_t kKeyBlock = 64;
// Enough rows to pay for transposing the keys, few enough to stay in the first-level cache.
constexpr int64_t kMaxRows = 32;

struct Scoring {
  float scale, softcap;  // scores are softcap * tanh(score / softcap) unless it is 0
  int64_t window;        // keys `window` or more places back are hidden, unless it is 0
};

// The softmax of one row so far: weights are e^(score - peak), `total` their sum.
struct Running {
  float peak, total;
};

// A row sees the keys [first, last) of the block.
struct Visible {
  int64_t first, last;
};

// Lines of memory that are asked for little by little: all at once they would fill the queue to
// memory and keep what is needed first waiting.
struct Fetch {
  const float* rows[kKeyBlock];
  int64_t count = 0, width = 0, at = 0, row = 0;  // `count` rows of `width` floats

  void begin(int64_t new_width) {
    count = at = row = 0;
    width = new_width;
  }
  void add(const float* p) { rows[count++] = p; }
  // As many as make a block's keys or values, asked for key by key.
  void some() {
    for (int i = 0; i < 4 && row < count; i++) {
      prefetch_second_level(rows[row] + at);
      at += kLanes;
      if (at < width) continue;
      at = 0;
      row++;
    }
  }
};

struct AttentionScratch {
  float* queries;     // [kMaxRows][W], scaled
  float* keys;        // [4][W][16], where the cache does not interleave them
  float* values;      // [64][W padded], only where W is no multiple of 16
  float* weights;     // [kMaxRows][64]
  float* mixed;       // [kMaxRows][W of values]: this block's part
  float* sums;        // [kMaxRows][W of values]: all blocks so far
  Running running[kMaxRows];
  Running block[kMaxRows];
  Visible visible[kMaxRows];
  const float* key_rows[kKeyBlock];             // where the cache does not interleave them
  const float* key_vectors[kKeyBlock / kLanes];  // [W][16] each, where it does
  const float* value_rows[kKeyBlock];
  Fetch next_keys;  // those of the block that comes after this one

  void reserve(Buffer& buffer, int64_t key_width, int64_t value_width);
};

struct BlockShape {
  int64_t rows, keys, key_width, value_width;
  bool interleaved;
};

// Fills `mixed` and `block` from `queries`, the keys, `value_rows` and `visible`. A row that sees
// no key of the block has total 0 and undefined `mixed`.
void attend_block(AttentionScratch& scratch, const BlockShape& shape, const Scoring& scoring);

// Adds a block's part to a row's sums. The sums of no block are {-infinity, 0} and zeros.
void merge(Running& running, float* sums, const Running& block, const float* mixed, int64_t width);

// What the weights' sum makes of the sums; 0 where no key was seen.
void normalise(const Running& running, const float* sums, float* output, int64_t width);

}  // namespace limner
