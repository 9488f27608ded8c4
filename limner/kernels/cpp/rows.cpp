// What is done to each token by itself: normalisation, embedding lookup, rotary positions, argmax.
#include <cmath>
#include <limits>

#include "limner.h"
#include "packed_weights.h"
#include "partition.h"
#include "token_tiles.h"
#include "vector_math.h"

namespace limner {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

// Sum of term(x) over a row.
template <class Term>
float row_sum(const float* row, int64_t columns, Term term) {
  Floats total = zeros();
  const int64_t whole = columns / kLanes * kLanes;
  for (int64_t i = 0; i < whole; i += kLanes) total = total + term(load(row + i));
  float rest = 0.0f;
  for (int64_t i = whole; i < columns; i++) {
    float lanes[kLanes];
    store(lanes, term(broadcast(row[i])));
    rest += lanes[0];
  }
  return sum(total) + rest;
}

struct Normalise {
  Rows input;
  const float* weight;  // may be null
  const float* bias;    // may be null
  float* output;
  float epsilon;
  bool centred;  // layer normalisation subtracts the mean, root-mean-square normalisation does not

  std::vector<Access> accesses() const {
    return {reads(input.data, input.bytes(), Split::kRows, input.count),
            writes(output, input.count * input.columns * 4, Split::kRows, input.count)};
  }

  void operator()(Worker& worker) const {
    const Range mine = worker.share(input.count);
    for (int64_t row = mine.begin; row < mine.end; row++) {
      one_row(input.data + row * input.stride, output + row * input.columns);
    }
  }

 private:
  void one_row(const float* row, float* out) const {
    const float width = static_cast<float>(input.columns);
    const auto itself = [](Floats x) { return x; };
    const float mean = centred ? row_sum(row, input.columns, itself) / width : 0.0f;
    const Floats shift = broadcast(mean);
    const auto square = [&](Floats x) { return (x - shift) * (x - shift); };
    const float variance = row_sum(row, input.columns, square) / width;
    const Floats scale = broadcast(1.0f / std::sqrt(variance + epsilon));
    for (int64_t i = 0; i < input.columns; i += kLanes) {
      const int64_t left = input.columns - i;
      Floats value = (load_first(row + i, left) - shift) * scale;
      if (weight != nullptr) value = value * load_first(weight + i, left);
      if (bias != nullptr) value = value + load_first(bias + i, left);
      store_first(out + i, value, left);
    }
  }
};

// Rows of a table by number; a number outside it gives NaN, because a plan cannot raise an error.
struct Lookup {
  const float* table;
  const int64_t* tokens;
  float* output;
  int64_t count, vocabulary, columns;

  std::vector<Access> accesses() const {
    return {reads(tokens, count * 8, Split::kRows, count),
            writes(output, count * columns * 4, Split::kRows, count)};
  }

  void operator()(Worker& worker) const {
    const Range mine = worker.share(count);
    for (int64_t row = mine.begin; row < mine.end; row++) {
      const bool known = tokens[row] >= 0 && tokens[row] < vocabulary;
      const float* from = table + (known ? tokens[row] * columns : 0);
      for (int64_t i = 0; i < columns; i++) output[row * columns + i] = known ? from[i] : kNaN;
    }
  }
};

template <class Format>
struct LookupPacked {
  PackedWeight<Format> table;
  const int64_t* tokens;
  float* output;
  int64_t count;

  std::vector<Access> accesses() const {
    return {reads(tokens, count * 8, Split::kRows, count),
            writes(output, count * table.inputs * 4, Split::kRows, count)};
  }

  void operator()(Worker& worker) const {
    const Range mine = worker.share(count);
    for (int64_t row = mine.begin; row < mine.end; row++) {
      float* out = output + row * table.inputs;
      if (tokens[row] >= 0 && tokens[row] < table.outputs) {
        one_row(tokens[row], out);
      } else {
        for (int64_t i = 0; i < table.inputs; i++) out[i] = kNaN;
      }
    }
  }

 private:
  void one_row(int64_t token, float* out) const {
    const int64_t block = token / kLanes, lane = token % kLanes;
    for (int64_t group = 0; group < table.groups(); group++) {
      float halves[2 * kLanes];
      const uint16_t* scales = table.scales_of(block, group);
      store(halves, load_half(scales));
      if (Format::kHasMinimum) store(halves + kLanes, load_half(scales + kLanes));
      const uint8_t* codes = table.codes_of(block, group) + 4 * lane;
      for (int i = 0; i < kGroup; i++) {
        const float value = halves[lane] * static_cast<float>(code(codes, i));
        out[group * kGroup + i] = Format::kHasMinimum ? value + halves[kLanes + lane] : value;
      }
    }
  }
  static int code(const uint8_t* codes, int i) {
    if (Format::kBits == 8) return codes[64 * (i / 4) + i % 4] - 128;
    const int both = codes[64 * (i / 8) + i % 4];
    const int nibble = i % 8 < 4 ? both & 15 : both >> 4;
    return Format::kHasMinimum ? nibble : nibble - 8;
  }
};

// Cosines and sines of position x frequency, worked out once for all layers.
struct Angles {
  const int64_t* positions;
  const float* frequency;
  float* cosine;
  float* sine;
  int64_t count, pairs;
  float gain;

  std::vector<Access> accesses() const {
    const int64_t bytes = count * pairs * 4;
    return {reads(positions, count * 8, Split::kRows, count),
            writes(cosine, bytes, Split::kRows, count), writes(sine, bytes, Split::kRows, count)};
  }

  void operator()(Worker& worker) const {
    const Range mine = worker.share(count);
    for (int64_t row = mine.begin; row < mine.end; row++) {
      for (int64_t pair = 0; pair < pairs; pair++) {
        const float angle = static_cast<float>(positions[row]) * frequency[pair];
        cosine[row * pairs + pair] = std::cos(angle) * gain;
        sine[row * pairs + pair] = std::sin(angle) * gain;
      }
    }
  }
};

// Turns each pair of the first 2 * pairs numbers of every head; the rest of the head is copied.
struct Rotate {
  Rows heads;  // columns: one token's heads side by side
  const float* cosine;
  const float* sine;
  float* output;
  int64_t head_count, pairs;
  bool interleaved;

  std::vector<Access> accesses() const {
    const int64_t units = heads.count * head_count, angles = heads.count * pairs * 4;
    return {reads(heads.data, heads.bytes(), Split::kHeads, units), reads(cosine, angles),
            reads(sine, angles),
            writes(output, heads.count * heads.columns * 4, Split::kHeads, units)};
  }

  void operator()(Worker& worker) const {
    const int64_t width = heads.columns / head_count;
    const Range mine = worker.share(heads.count * head_count);
    for (int64_t unit = mine.begin; unit < mine.end; unit++) {
      const int64_t token = unit / head_count, head = unit % head_count;
      const float* in = heads.data + token * heads.stride + head * width;
      float* out = output + token * heads.columns + head * width;
      const float* c = cosine + token * pairs;
      const float* s = sine + token * pairs;
      if (interleaved) {
        neighbours(in, c, s, out);
      } else {
        halves(in, c, s, out);
      }
      for (int64_t i = 2 * pairs; i < width; i++) out[i] = in[i];
    }
  }

 private:
  void halves(const float* in, const float* c, const float* s, float* out) const {
    for (int64_t i = 0; i < pairs; i += kLanes) {
      const int64_t left = pairs - i;
      const Floats cos = load_first(c + i, left), sin = load_first(s + i, left);
      const Floats first = load_first(in + i, left), second = load_first(in + pairs + i, left);
      store_first(out + i, first * cos - second * sin, left);
      store_first(out + pairs + i, second * cos + first * sin, left);
    }
  }
  void neighbours(const float* in, const float* c, const float* s, float* out) const {
    for (int64_t i = 0; i < pairs; i++) {
      const float first = in[2 * i], second = in[2 * i + 1];
      out[2 * i] = first * c[i] - second * s[i];
      out[2 * i + 1] = second * c[i] + first * s[i];
    }
  }
};

struct Peak {
  float value;
  int64_t index;
};

// The largest of the columns [begin, end), the first of equals; a NaN counts as the largest.
Peak find_peak(const float* row, int64_t begin, int64_t end) {
  Peak best{row[begin], begin};
  const int64_t whole = begin + (end - begin) / kLanes * kLanes;
  Floats high = broadcast(row[begin]);
  Ints bits = broadcast(0);
  for (int64_t i = begin; i < whole; i += kLanes) {
    high = maximum(high, load(row + i));
    bits = maximum(bits, bits_of(magnitude(load(row + i))));
  }
  for (int64_t i = whole; i < end; i++) {
    high = maximum(high, broadcast(row[i]));
    bits = maximum(bits, bits_of(magnitude(broadcast(row[i]))));
  }
  const bool has_nan = largest(bits) > 0x7F800000;
  best.value = has_nan ? kNaN : largest(high);
  for (best.index = begin; best.index < end; best.index++) {
    const float value = row[best.index];
    if (has_nan ? std::isnan(value) : value == best.value) break;
  }
  return best;
}

// The peaks of equal parts of each row. The parts do not depend on the number of threads.
constexpr int64_t kPeakParts = 64;

struct PartPeaks {
  Rows input;
  Peak* peaks;  // [row][kPeakParts]

  std::vector<Access> accesses() const {
    return {reads(input.data, input.bytes()),
            writes(peaks, input.count * kPeakParts * static_cast<int64_t>(sizeof(Peak)))};
  }

  void operator()(Worker& worker) const {
    const Range mine = worker.share(input.count * kPeakParts);
    for (int64_t unit = mine.begin; unit < mine.end; unit++) {
      const int64_t row = unit / kPeakParts, part = unit % kPeakParts;
      const int64_t begin = input.columns * part / kPeakParts;
      const int64_t end = input.columns * (part + 1) / kPeakParts;
      peaks[unit] = {0.0f, -1};
      if (begin < end) peaks[unit] = find_peak(input.data + row * input.stride, begin, end);
    }
  }
};

struct JoinPeaks {
  const Peak* peaks;
  int64_t* output;
  int64_t rows;

  std::vector<Access> accesses() const {
    return {reads(peaks, rows * kPeakParts * static_cast<int64_t>(sizeof(Peak))),
            writes(output, rows * 8)};
  }

  void operator()(Worker& worker) const {
    const Range mine = worker.share(rows);
    for (int64_t row = mine.begin; row < mine.end; row++) {
      Peak best{0.0f, -1};
      for (int64_t part = 0; part < kPeakParts; part++) {
        const Peak& peak = peaks[row * kPeakParts + part];
        if (peak.index < 0 || std::isnan(best.value)) continue;
        if (best.index < 0 || std::isnan(peak.value) || peak.value > best.value) best = peak;
      }
      output[row] = best.index;
    }
  }
};

}  // namespace
}  // namespace limner

using namespace limner;

void limner_normalise(Plan* plan, const float* input, int64_t stride, const float* weight,
                      const float* bias, float epsilon, int32_t centred, float* output,
                      int64_t rows, int64_t columns) {
  Submission submission(plan);
  submission.append(Normalise{{input, rows, columns, stride}, weight, bias, output, epsilon,
                              centred != 0});
}

void limner_lookup(Plan* plan, const float* table, const int64_t* tokens, float* output,
                   int64_t count, int64_t vocabulary, int64_t columns) {
  Submission submission(plan);
  submission.append(Lookup{table, tokens, output, count, vocabulary, columns});
}

void limner_lookup_packed(Plan* plan, const uint8_t* codes, const uint16_t* scales, int32_t bits,
                          int32_t has_minimum, const int64_t* tokens, float* output, int64_t count,
                          int64_t vocabulary, int64_t columns) {
  Submission submission(plan);
  if (bits == 8) {
    submission.append(LookupPacked<EightBits>{{codes, scales, vocabulary, columns}, tokens, output,
                                              count});
  } else if (has_minimum != 0) {
    submission.append(LookupPacked<FourBitsMinimum>{{codes, scales, vocabulary, columns}, tokens,
                                                    output, count});
  } else {
    submission.append(LookupPacked<FourBits>{{codes, scales, vocabulary, columns}, tokens, output,
                                             count});
  }
}

void limner_angles(Plan* plan, const int64_t* positions, const float* frequency, float gain,
                   float* cosine, float* sine, int64_t count, int64_t pairs) {
  Submission submission(plan);
  submission.append(Angles{positions, frequency, cosine, sine, count, pairs, gain});
}

void limner_rotate(Plan* plan, const float* heads, int64_t stride, const float* cosine,
                   const float* sine, int32_t interleaved, float* output, int64_t count,
                   int64_t head_count, int64_t width, int64_t pairs) {
  Submission submission(plan);
  submission.append(Rotate{{heads, count, head_count * width, stride}, cosine, sine, output,
                           head_count, pairs, interleaved != 0});
}

void limner_argmax(Plan* plan, const float* input, int64_t stride, int64_t* output, int64_t rows,
                   int64_t columns) {
  Submission submission(plan);
  const Rows input_rows{input, rows, columns, stride};
  const size_t bytes = static_cast<size_t>(rows * kPeakParts) * sizeof(Peak);
  Peak* peaks = static_cast<Peak*>(submission.between(bytes));
  submission.append(PartPeaks{input_rows, peaks});
  submission.append(JoinPeaks{peaks, output, rows});
}
