// Activations as the matrix product reads them: tokens in tiles, each tile one forward stream.
//
// Tokens are cut into tiles of at most kTileTokens whose sizes differ by at most one. For 8-bit and
// 4-bit weights each token is rounded to int8 in groups of 32 inputs, and a tile of T tokens holds
// for every group
//   int32 codes[8][T]    four int8 activations of a token in each word
//   float scale[T]       value = scale * code
//   int32 offset[T]      -128 * (sum of the codes): takes the offset of unsigned weight codes off
//   float total[T]       sum of the codes, for weights with a minimum
//   int32 first[T]       sum of the first 16 codes, for weights with a scale for each 16 inputs
// For float weights a tile holds for every input float values[T].
// What is done to a token does not depend on its tile, nor on how many tokens there are.
#pragma once
#include <cstdint>

#include "plan.h"
#include "simd.h"

namespace limner {

constexpr int kGroup = 32;
constexpr int kRecordWords = 12;
constexpr int kScaleWord = 8, kOffsetWord = 9, kTotalWord = 10, kFirstWord = 11;

struct TokenTiles {
  int64_t tokens;
  int64_t count() const { return blocks_of(tokens, kTileTokens); }
  int64_t start(int64_t tile) const { return tokens * tile / count(); }
  int64_t size(int64_t tile) const { return start(tile + 1) - start(tile); }
  int64_t tile_of(int64_t token) const;
};

// int32 words that hold `rows` rounded to int8, and floats that hold them as they are.
inline int64_t quantised_words(const Rows& rows) {
  return rows.count * (rows.columns / kGroup) * kRecordWords;
}
inline int64_t float_words(const Rows& rows) { return rows.count * rows.columns; }

// Tiles of an input: all threads share one copy, or each has its own.
template <class Word>
struct Tiles {
  const Word* shared;
  const ThreadMemory* own;  // null where they share
  int64_t words;

  const Word* of(const Worker& worker) const {
    return own == nullptr ? shared : static_cast<const Word*>(own->of(worker.index));
  }
  // A thread's own memory is no concern of the others.
  Access access() const { return reads(shared, own == nullptr ? words * 4 : 0); }
};

// Each appends the kernel that fills the tiles, unless the plan being captured has them already.
Tiles<int32_t> append_quantised(Submission& submission, const Rows& rows);
Tiles<float> append_float_tiles(Submission& submission, const Rows& rows);

// `output` (2 x rows): a copy of the rows, and what their rounding to int8 leaves over.
void append_remainder(Submission& submission, const Rows& rows, float* output);

}  // namespace limner
