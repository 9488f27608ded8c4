#include "token_tiles.h"

#include <limits>

namespace limner {
namespace {

constexpr int32_t kInfinityBits = 0x7F800000;
// Below this 127 / largest would overflow: such a group is zero to any weight of reasonable size.
constexpr float kSmallest = 0x1p-119f;

struct GroupScale {
  float scale;    // value = scale * code
  float inverse;  // code = value * inverse
};

// Not a number and infinity make every output of their token not a number; they are found by their
// bits because a maximum of floats may drop a NaN.
GroupScale group_scale(Floats first, Floats second) {
  const int32_t bits = largest(maximum(bits_of(magnitude(first)), bits_of(magnitude(second))));
  if (bits >= kInfinityBits) return {std::numeric_limits<float>::quiet_NaN(), 0.0f};
  float peak;
  std::memcpy(&peak, &bits, sizeof peak);
  if (peak < kSmallest) return {0.0f, 0.0f};
  return {peak / 127.0f, 127.0f / peak};
}

// Rounds one group and writes its record words, which lie `width` words apart.
void quantise_group(const float* values, int64_t width, int32_t* record) {
  const Floats first = load(values), second = load(values + kLanes);
  const GroupScale group = group_scale(first, second);
  Ints low = broadcast(0), high = low;
  if (group.inverse != 0.0f) {
    low = to_nearest(first * broadcast(group.inverse));
    high = to_nearest(second * broadcast(group.inverse));
  }
  int32_t words[8];
  int8_t* codes = reinterpret_cast<int8_t*>(words);
  store_int8(codes, low);
  store_int8(codes + kLanes, high);
  const int32_t total = sum(low + high);
  const float total_float = static_cast<float>(total);
  for (int i = 0; i < 8; i++) record[i * width] = words[i];
  std::memcpy(record + kScaleWord * width, &group.scale, sizeof(float));
  record[kOffsetWord * width] = -128 * total;
  std::memcpy(record + kTotalWord * width, &total_float, sizeof(float));
}

struct QuantiseTokens {
  Rows rows;
  int32_t* tiles;

  std::vector<Access> accesses() const {
    return {reads(rows.data, rows.bytes(), Split::kRows, rows.count),
            writes(tiles, quantised_words(rows) * 4, Split::kRows, rows.count)};
  }

  void operator()(Worker& worker) const {
    const TokenTiles layout{rows.count};
    const int64_t groups = rows.columns / kGroup;
    const Range mine = worker.share(rows.count);
    for (int64_t token = mine.begin; token < mine.end; token++) {
      const int64_t tile = layout.tile_of(token), start = layout.start(tile);
      const int64_t width = layout.size(tile);
      int32_t* record = tiles + start * groups * kRecordWords + (token - start);
      const float* values = rows.data + token * rows.stride;
      for (int64_t group = 0; group < groups; group++) {
        quantise_group(values + group * kGroup, width, record + group * kRecordWords * width);
      }
    }
  }
};

struct InterleaveTokens {
  Rows rows;
  float* tiles;

  std::vector<Access> accesses() const {
    return {reads(rows.data, rows.bytes(), Split::kRows, rows.count),
            writes(tiles, float_words(rows) * 4, Split::kRows, rows.count)};
  }

  void operator()(Worker& worker) const {
    const TokenTiles layout{rows.count};
    const Range mine = worker.share(rows.count);
    for (int64_t token = mine.begin; token < mine.end; token++) {
      const int64_t tile = layout.tile_of(token), start = layout.start(tile);
      const int64_t width = layout.size(tile);
      float* out = tiles + start * rows.columns + (token - start);
      const float* values = rows.data + token * rows.stride;
      for (int64_t i = 0; i < rows.columns; i++) out[i * width] = values[i];
    }
  }
};

// The two forms of one input are told apart by the sign of the column count.
template <class Kernel, class Word>
const Word* append_tiles(Submission& submission, const Rows& rows, int64_t words, int64_t form) {
  const int64_t columns = form * rows.columns;
  Plan& plan = submission.plan();
  const void* known = plan.find_quantised(rows.data, rows.count, columns, rows.stride);
  if (known != nullptr) return static_cast<const Word*>(known);
  Word* tiles = static_cast<Word*>(submission.between(static_cast<size_t>(words) * sizeof(Word)));
  submission.append(Kernel{rows, tiles});
  plan.keep_quantised({rows.data, rows.bytes(), rows.count, columns, rows.stride, tiles});
  return tiles;
}

}  // namespace

int64_t TokenTiles::tile_of(int64_t token) const {
  int64_t tile = token * count() / tokens;
  while (start(tile + 1) <= token) tile++;
  while (start(tile) > token) tile--;
  return tile;
}

const int32_t* append_quantised(Submission& submission, const Rows& rows) {
  return append_tiles<QuantiseTokens, int32_t>(submission, rows, quantised_words(rows), 1);
}

const float* append_float_tiles(Submission& submission, const Rows& rows) {
  return append_tiles<InterleaveTokens, float>(submission, rows, float_words(rows), -1);
}

}  // namespace limner
