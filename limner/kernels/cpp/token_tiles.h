// Activations as the matrix product reads them: tokens in tiles, each tile one forward stream.
//
// Tokens are cut into tiles of at most kTileTokens whose sizes differ by at most one. For 8-bit and
// 4-bit weights each token is rounded to int8 in groups of 32 inputs, and a tile of T tokens holds
// for every group
//   int32 codes[8][T]    four int8 activations of a token in each word
//   float scale[T]       value = scale * code
//   int32 offset[T]      -128 * (sum of the codes): takes the offset of unsigned weight codes off
//   float total[T]       sum of the codes, for weights with a minimum
// For float weights a tile holds for every input float values[T].
// What is done to a token does not depend on its tile, nor on how many tokens there are.
#pragma once
#include <cstdint>

#include "plan.h"
#include "simd.h"

namespace limner {

constexpr int kGroup = 32;
constexpr int kRecordWords = 11;
constexpr int kScaleWord = 8, kOffsetWord = 9, kTotalWord = 10;

struct TokenTiles {
  int64_t tokens;
  int64_t count() const { return blocks_of(tokens, kTileTokens); }
  int64_t start(int64_t tile) const { return tokens * tile / count(); }
  int64_t size(int64_t tile) const { return start(tile + 1) - start(tile); }
  int64_t tile_of(int64_t token) const;
};

// Rows of floats, `stride` floats apart.
struct Rows {
  const float* data;
  int64_t count, columns, stride;
  int64_t bytes() const {
    return count > 0 ? ((count - 1) * stride + columns) * static_cast<int64_t>(sizeof(float)) : 0;
  }
};

// int32 words that hold `rows` rounded to int8, and floats that hold them as they are.
inline int64_t quantised_words(const Rows& rows) {
  return rows.count * (rows.columns / kGroup) * kRecordWords;
}
inline int64_t float_words(const Rows& rows) { return rows.count * rows.columns; }

// Each appends the kernel that fills the tiles, unless the plan being captured has them already.
const int32_t* append_quantised(Submission& submission, const Rows& rows);
const float* append_float_tiles(Submission& submission, const Rows& rows);

}  // namespace limner
