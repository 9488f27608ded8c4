#include "attention_block.h"

#include <algorithm>
#include <type_traits>

#include "vector_math.h"

namespace limner {
namespace {

// keys[v][w][i] = key_rows[16 v + i][w]; lanes past the last key are zero.
void interleave_keys(AttentionScratch& scratch, int64_t count, int64_t width) {
  for (int64_t j = 0; j < count; j += kLanes) {
    float* to = scratch.keys + j * width;
    scratch.key_vectors[j / kLanes] = to;
    for (int64_t w = 0; w < width; w += kLanes) {
      Floats square[kLanes];
      LIMNER_UNROLL
      for (int i = 0; i < kLanes; i++) {
        square[i] = j + i < count ? load_first(scratch.key_rows[j + i] + w, width - w) : zeros();
      }
      transpose(square);
      const int64_t filled = std::min<int64_t>(kLanes, width - w);
      for (int64_t i = 0; i < filled; i++) store(to + (w + i) * kLanes, square[i]);
    }
  }
}

// Scores of kRows rows against kVectors x 16 keys, inputs in order.
template <int kRows, int kVectors>
void score_tile(const float* queries, const float* const* keys, int64_t width, Fetch& values,
                float* scores) {
  Floats sums[kRows][kVectors];
  LIMNER_UNROLL
  for (int row = 0; row < kRows; row++) {
    LIMNER_UNROLL
    for (int v = 0; v < kVectors; v++) sums[row][v] = zeros();
  }
  for (int64_t w = 0; w < width; w++) {
    values.some();
    Floats key[kVectors];
    LIMNER_UNROLL
    for (int v = 0; v < kVectors; v++) key[v] = load(keys[v] + w * kLanes);
    LIMNER_UNROLL
    for (int row = 0; row < kRows; row++) {
      const Floats query = broadcast(queries[row * width + w]);
      LIMNER_UNROLL
      for (int v = 0; v < kVectors; v++) sums[row][v] = fused(query, key[v], sums[row][v]);
    }
  }
  LIMNER_UNROLL
  for (int row = 0; row < kRows; row++) {
    LIMNER_UNROLL
    for (int v = 0; v < kVectors; v++) {
      store(scores + row * kKeyBlock + v * kLanes, sums[row][v]);
    }
  }
}

template <int kRows>
void score_rows(const AttentionScratch& scratch, int64_t row, int64_t keys, int64_t width,
                Fetch& values) {
  const float* queries = scratch.queries + row * width;
  float* scores = scratch.weights + row * kKeyBlock;
  constexpr int64_t kWide = kAttentionVectors * kLanes;
  int64_t j = 0;
  for (; j + kWide < keys + kLanes; j += kWide) {
    score_tile<kRows, kAttentionVectors>(queries, scratch.key_vectors + j / kLanes, width, values,
                                         scores + j);
  }
  for (; j < keys; j += kLanes) {
    score_tile<kRows, 1>(queries, scratch.key_vectors + j / kLanes, width, values, scores + j);
  }
}

void soften(float* scores, int64_t keys, float softcap) {
  const Floats cap = broadcast(softcap);
  for (int64_t j = 0; j < keys; j += kLanes) {
    store(scores + j, cap * hyperbolic_tangent(load(scores + j) / cap));
  }
}

// Turns one row's scores into weights e^(score - peak), zero where the row may not see.
Running weigh(float* scores, int64_t keys, Visible visible, const Scoring& scoring) {
  Running result{-kInfinity, 0.0f};
  if (visible.first >= visible.last) return result;
  if (scoring.softcap != 0.0f) soften(scores, keys, scoring.softcap);
  // Hidden keys may hold anything, not-a-number too: they are overwritten, not multiplied away.
  std::fill(scores, scores + visible.first, -kInfinity);
  std::fill(scores + visible.last, scores + blocks_of(keys, kLanes) * kLanes, -kInfinity);
  Floats peak = broadcast(-kInfinity);
  for (int64_t j = 0; j < keys; j += kLanes) peak = maximum(peak, load(scores + j));
  result.peak = largest(peak);
  // With all scores minus infinity the difference below must not become not-a-number.
  const Floats shift = broadcast(result.peak == -kInfinity ? 0.0f : result.peak);
  Floats total = zeros();
  for (int64_t j = 0; j < keys; j += kLanes) {
    const Floats weight = exponential(load(scores + j) - shift);
    store(scores + j, weight);
    total = total + weight;
  }
  result.total = sum(total);
  return result;
}

// mixed = sum over the keys [first, last) in order of weight x value, for kRows rows that see alike.
template <int kRows, int kVectors>
void mix_tile(AttentionScratch& scratch, int64_t row, Visible visible, int64_t column,
              int64_t width) {
  Floats sums[kRows][kVectors];
  LIMNER_UNROLL
  for (int i = 0; i < kRows; i++) {
    LIMNER_UNROLL
    for (int v = 0; v < kVectors; v++) sums[i][v] = zeros();
  }
  const float* weights = scratch.weights + row * kKeyBlock;
  for (int64_t j = visible.first; j < visible.last; j++) {
    scratch.next_keys.some();
    Floats value[kVectors];
    LIMNER_UNROLL
    for (int v = 0; v < kVectors; v++) value[v] = load(scratch.value_rows[j] + column + v * kLanes);
    LIMNER_UNROLL
    for (int i = 0; i < kRows; i++) {
      const Floats weight = broadcast(weights[i * kKeyBlock + j]);
      LIMNER_UNROLL
      for (int v = 0; v < kVectors; v++) sums[i][v] = fused(weight, value[v], sums[i][v]);
    }
  }
  LIMNER_UNROLL
  for (int i = 0; i < kRows; i++) {
    LIMNER_UNROLL
    for (int v = 0; v < kVectors; v++) {
      const int64_t at = column + v * kLanes;
      store_first(scratch.mixed + (row + i) * width + at, sums[i][v], width - at);
    }
  }
}

template <int kRows>
void mix_rows(AttentionScratch& scratch, int64_t row, int64_t width) {
  constexpr int64_t kWide = kAttentionVectors * kLanes;
  const Visible visible = scratch.visible[row];
  int64_t column = 0;
  for (; column + kWide <= width; column += kWide) {
    mix_tile<kRows, kAttentionVectors>(scratch, row, visible, column, width);
  }
  for (; column < width; column += kLanes) {
    mix_tile<kRows, 1>(scratch, row, visible, column, width);
  }
}

// Values of a width that is no multiple of 16 are copied, so that whole vectors can be read.
void pad_values(AttentionScratch& scratch, int64_t count, int64_t width) {
  const int64_t padded = blocks_of(width, kLanes) * kLanes;
  for (int64_t j = 0; j < count; j++) {
    float* to = scratch.values + j * padded;
    std::copy(scratch.value_rows[j], scratch.value_rows[j] + width, to);
    std::fill(to + width, to + padded, 0.0f);
    scratch.value_rows[j] = to;
  }
}

// How many rows from `row` on, up to a tile, see the same keys.
int64_t rows_alike(const AttentionScratch& scratch, int64_t row, int64_t end) {
  int64_t count = 1;
  while (count < kAttentionRows && row + count < end &&
         scratch.visible[row + count].first == scratch.visible[row].first &&
         scratch.visible[row + count].last == scratch.visible[row].last) {
    count++;
  }
  return count;
}

// Calls `work` with the number of rows, at most kMost, as a constant.
template <int kMost, class Work>
inline void with_rows(int64_t rows, const Work& work) {
  if constexpr (kMost > 1) {
    if (rows < kMost) return with_rows<kMost - 1>(rows, work);
  }
  work(std::integral_constant<int, kMost>());
}

}  // namespace

void AttentionScratch::reserve(Buffer& buffer, int64_t key_width, int64_t value_width) {
  const int64_t padded = blocks_of(value_width, kLanes) * kLanes;
  const int64_t sizes[] = {kMaxRows * key_width,  key_width * kKeyBlock, kKeyBlock * padded,
                           kMaxRows * kKeyBlock,  kMaxRows * padded,     kMaxRows * padded};
  float** parts[] = {&queries, &keys, &values, &weights, &mixed, &sums};
  int64_t total = 0;
  for (int64_t size : sizes) total += blocks_of(size, kLanes) * kLanes;
  float* memory = static_cast<float*>(buffer.reserve(static_cast<size_t>(total) * sizeof(float)));
  for (int i = 0; i < 6; i++) {
    *parts[i] = memory;
    memory += blocks_of(sizes[i], kLanes) * kLanes;
  }
}

void attend_block(AttentionScratch& scratch, const BlockShape& shape, const Scoring& scoring) {
  // Values are needed after the scores: what is not in the cache comes meanwhile.
  Fetch values;
  values.begin(shape.value_width);
  for (int64_t j = 0; j < shape.keys; j++) values.add(scratch.value_rows[j]);
  if (!shape.interleaved) interleave_keys(scratch, shape.keys, shape.key_width);
  if (shape.value_width % kLanes != 0) pad_values(scratch, shape.keys, shape.value_width);
  for (int64_t row = 0; row < shape.rows; row += kAttentionRows) {
    with_rows<kAttentionRows>(shape.rows - row, [&](auto rows) {
      score_rows<rows>(scratch, row, shape.keys, shape.key_width, values);
    });
  }
  for (int64_t row = 0; row < shape.rows; row++) {
    float* scores = scratch.weights + row * kKeyBlock;
    scratch.block[row] = weigh(scores, shape.keys, scratch.visible[row], scoring);
  }
  for (int64_t row = 0; row < shape.rows;) {
    const int64_t alike = rows_alike(scratch, row, shape.rows);
    with_rows<kAttentionRows>(alike, [&](auto rows) {
      mix_rows<rows>(scratch, row, shape.value_width);
    });
    row += alike;
  }
}

void merge(Running& running, float* sums, const Running& block, const float* mixed,
           int64_t width) {
  if (block.total == 0.0f) return;
  const float peak = std::max(running.peak, block.peak);
  float factors[kLanes] = {running.peak - peak, block.peak - peak};
  store(factors, exponential(load(factors)));
  running = {peak, running.total * factors[0] + block.total * factors[1]};
  const Floats old = broadcast(factors[0]), fresh = broadcast(factors[1]);
  for (int64_t i = 0; i < width; i += kLanes) {
    const Floats part = load_first(mixed + i, width - i) * fresh;
    store_first(sums + i, fused(load_first(sums + i, width - i), old, part), width - i);
  }
}

void normalise(const Running& running, const float* sums, float* output, int64_t width) {
  const Floats scale = broadcast(running.total == 0.0f ? 0.0f : 1.0f / running.total);
  for (int64_t i = 0; i < width; i += kLanes) {
    store_first(output + i, load_first(sums + i, width - i) * scale, width - i);
  }
}

}  // namespace limner
