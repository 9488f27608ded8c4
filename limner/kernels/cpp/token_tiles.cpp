#include "token_tiles.h"

#include <type_traits>

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
  if (bits >= kInfinityBits) return {kNaN, 0.0f};
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
  const int32_t first_half = sum(low), total = first_half + sum(high);
  const float total_float = static_cast<float>(total);
  for (int i = 0; i < 8; i++) record[i * width] = words[i];
  std::memcpy(record + kScaleWord * width, &group.scale, sizeof(float));
  record[kOffsetWord * width] = -128 * total;
  std::memcpy(record + kTotalWord * width, &total_float, sizeof(float));
  record[kFirstWord * width] = first_half;
}

// Where a token's numbers stand in its tile.
struct Place {
  int64_t start, width, lane;
};

Place place_of(const TokenTiles& layout, int64_t token) {
  const int64_t tile = layout.tile_of(token), start = layout.start(tile);
  return {start, layout.size(tile), token - start};
}

struct Quantise {
  using Word = int32_t;
  static int64_t words(const Rows& rows) { return quantised_words(rows); }

  static void put(const float* values, int64_t columns, const Place& place, int32_t* tiles) {
    const int64_t groups = columns / kGroup;
    int32_t* record = tiles + place.start * groups * kRecordWords + place.lane;
    for (int64_t group = 0; group < groups; group++) {
      quantise_group(values + group * kGroup, place.width, record);
      record += kRecordWords * place.width;
    }
  }
};

struct Interleave {
  using Word = float;
  static int64_t words(const Rows& rows) { return float_words(rows); }

  static void put(const float* values, int64_t columns, const Place& place, float* tiles) {
    float* out = tiles + place.start * columns + place.lane;
    for (int64_t i = 0; i < columns; i++) out[i * place.width] = values[i];
  }
};

// Each thread fills the tiles of some tokens.
template <class Form>
struct FillTiles {
  Rows rows;
  typename Form::Word* tiles;

  std::vector<Access> accesses() const {
    return {reads(rows.data, rows.bytes(), Split::kRows, rows.count),
            writes(tiles, Form::words(rows) * 4, Split::kRows, rows.count)};
  }

  void operator()(Worker& worker) const {
    const TokenTiles layout{rows.count};
    const Range mine = worker.share(rows.count);
    for (int64_t token = mine.begin; token < mine.end; token++) {
      Form::put(rows.data + token * rows.stride, rows.columns, place_of(layout, token), tiles);
    }
  }
};

// With few tokens every thread fills tiles of its own: that takes less time than to wait for
// another. Normalisation before it is done again for the same reason.
constexpr int64_t kFewTokens = 4;

template <class Form>
struct FillOwnTiles {
  Rows rows;
  RowNorm norm;
  bool normalised;  // whether `rows` have to be
  const ThreadMemory* memory;

  std::vector<Access> accesses() const { return {reads(rows.data, rows.bytes())}; }

  void operator()(Worker& worker) const {
    const TokenTiles layout{rows.count};
    auto* tiles = static_cast<typename Form::Word*>(memory->of(worker.index));
    const size_t bytes = static_cast<size_t>(rows.columns) * sizeof(float);
    float* scratch = static_cast<float*>(worker.scratch.reserve(bytes));
    for (int64_t token = 0; token < rows.count; token++) {
      const float* values = rows.data + token * rows.stride;
      if (normalised) norm(values, rows.columns, scratch);
      Form::put(normalised ? scratch : values, rows.columns, place_of(layout, token), tiles);
    }
  }
};

// A copy of the rows, and below it what rounding a group of them leaves over.
struct WithRemainder {
  Rows rows;
  float* output;

  std::vector<Access> accesses() const {
    return {reads(rows.data, rows.bytes(), Split::kRows, rows.count),
            writes(output, 2 * rows.count * rows.columns * 4, Split::kRows, rows.count)};
  }

  void operator()(Worker& worker) const {
    const Range mine = worker.share(rows.count);
    for (int64_t token = mine.begin; token < mine.end; token++) {
      const float* values = rows.data + token * rows.stride;
      float* same = output + token * rows.columns;
      float* left = same + rows.count * rows.columns;
      for (int64_t i = 0; i < rows.columns; i += kGroup) {
        remainder(values + i, same + i, left + i);
      }
    }
  }

  static void remainder(const float* values, float* same, float* left) {
    const Floats first = load(values), second = load(values + kLanes);
    const GroupScale group = group_scale(first, second);
    const bool rounded = group.inverse != 0.0f;
    const Floats scale = broadcast(group.scale), inverse = broadcast(group.inverse);
    store(same, first);
    store(same + kLanes, second);
    // Nothing is left over of a group that is zero to the product, or not a number.
    const Floats none = broadcast(0.0f);
    store(left, rounded ? first - scale * to_floats(to_nearest(first * inverse)) : none);
    store(left + kLanes, rounded ? second - scale * to_floats(to_nearest(second * inverse)) : none);
  }
};

template <class Form>
KnownTiles fill_tiles(Submission& submission, const Rows& rows) {
  Plan& plan = submission.plan();
  const size_t bytes = static_cast<size_t>(Form::words(rows)) * sizeof(typename Form::Word);
  const bool quantised = std::is_same<Form, Quantise>::value;
  if (!submission.capturing() || rows.count > kFewTokens) {
    auto* tiles = static_cast<typename Form::Word*>(submission.between(bytes));
    submission.append(FillTiles<Form>{rows, tiles});
    return {rows, quantised, tiles, nullptr, static_cast<int64_t>(bytes)};
  }
  const KnownNorm* source = plan.find_norm(rows);
  const ThreadMemory* memory = plan.allocate_for_threads(bytes);
  submission.append(source != nullptr
                        ? FillOwnTiles<Form>{source->input, source->norm, true, memory}
                        : FillOwnTiles<Form>{rows, {}, false, memory});
  return {rows, quantised, nullptr, memory, static_cast<int64_t>(bytes)};
}

template <class Form>
Tiles<typename Form::Word> append_tiles(Submission& submission, const Rows& rows) {
  Plan& plan = submission.plan();
  if (plan.find_tiles(rows, std::is_same<Form, Quantise>::value) == nullptr) {
    plan.keep_tiles(fill_tiles<Form>(submission, rows));
  }
  const KnownTiles& known = *plan.find_tiles(rows, std::is_same<Form, Quantise>::value);
  return {static_cast<const typename Form::Word*>(known.shared), known.own, Form::words(rows)};
}

}  // namespace

int64_t TokenTiles::tile_of(int64_t token) const {
  int64_t tile = token * count() / tokens;
  while (start(tile + 1) <= token) tile++;
  while (start(tile) > token) tile--;
  return tile;
}

Tiles<int32_t> append_quantised(Submission& submission, const Rows& rows) {
  return append_tiles<Quantise>(submission, rows);
}

void append_remainder(Submission& submission, const Rows& rows, float* output) {
  submission.append(WithRemainder{rows, output});
}

Tiles<float> append_float_tiles(Submission& submission, const Rows& rows) {
  // One token's tile is the row itself.
  if (rows.count == 1) return {rows.data, nullptr, float_words(rows)};
  return append_tiles<Interleave>(submission, rows);
}

}  // namespace limner
