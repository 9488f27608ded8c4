// What is done to each token by itself: normalisation, embedding lookup, rotary positions.
#include <cmath>

#include "limner.h"
#include "packed_weights.h"
#include "partition.h"
#include "token_tiles.h"
#include "vector_math.h"

namespace limner {
namespace {

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
  RowNorm norm;
  float* output;

  std::vector<Access> accesses() const {
    return {reads(input.data, input.bytes(), Split::kRows, input.count),
            writes(output, input.count * input.columns * 4, Split::kRows, input.count)};
  }

  void operator()(Worker& worker) const {
    const Range mine = worker.share(input.count);
    for (int64_t row = mine.begin; row < mine.end; row++) {
      norm(input.data + row * input.stride, input.columns, output + row * input.columns);
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
      float scales[2][kLanes];
      for (int row = 0; row < 2; row++) {
        const bool has_row = row == 0 || Format::kHasMinimum || Format::kParts == 2;
        store(scales[row], has_row ? Format::Scales::get(table.scales_of(block), group, row) : zeros());
      }
      const uint8_t* codes = table.codes_of(block, group) + 4 * lane;
      for (int i = 0; i < kGroup; i++) {
        const float scale = scales[Format::kParts * i / kGroup][lane];
        const float value = scale * static_cast<float>(code(codes, i) - Format::kOffset);
        out[group * kGroup + i] = Format::kHasMinimum ? value + scales[1][lane] : value;
      }
    }
  }
  static int code(const uint8_t* codes, int i) {
    if (Format::kBits == 8) return codes[64 * (i / 4) + i % 4];
    const int both = codes[64 * (i / 8) + i % 4];
    const int nibble = i % 8 < 4 ? both & 15 : both >> 4;
    if (Format::kBits == 4) return nibble;
    const int four = codes[256 + 64 * (i / 16) + i % 4];
    return nibble | (four >> (2 * (i / 4 % 4)) & 3) << 4;
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

}  // namespace

void RowNorm::operator()(const float* row, int64_t columns, float* output) const {
  const float width = static_cast<float>(columns);
  const auto itself = [](Floats x) { return x; };
  const float mean = centred ? row_sum(row, columns, itself) / width : 0.0f;
  const Floats shift = broadcast(mean);
  const auto square = [&](Floats x) { return (x - shift) * (x - shift); };
  const float variance = row_sum(row, columns, square) / width;
  const Floats scale = broadcast(1.0f / std::sqrt(variance + epsilon));
  for (int64_t i = 0; i < columns; i += kLanes) {
    const int64_t left = columns - i;
    Floats value = (load_first(row + i, left) - shift) * scale;
    if (weight != nullptr) value = value * load_first(weight + i, left);
    if (bias != nullptr) value = value + load_first(bias + i, left);
    store_first(output + i, value, left);
  }
}

}  // namespace limner

using namespace limner;

void limner_normalise(Plan* plan, const float* input, int64_t stride, const float* weight,
                      const float* bias, float epsilon, int32_t centred, float* output,
                      int64_t rows, int64_t columns) {
  Submission submission(plan);
  const Rows input_rows{input, rows, columns, stride};
  const RowNorm norm{weight, bias, epsilon, centred != 0};
  submission.append(Normalise{input_rows, norm, output});
  submission.plan().keep_norm({output, input_rows, norm});
}

void limner_lookup(Plan* plan, const float* table, const int64_t* tokens, float* output,
                   int64_t count, int64_t vocabulary, int64_t columns) {
  Submission submission(plan);
  submission.append(Lookup{table, tokens, output, count, vocabulary, columns});
}

void limner_lookup_packed(Plan* plan, const void* codes, const void* scales, int32_t bits,
                          int32_t scale_form, const int64_t* tokens, float* output, int64_t count,
                          int64_t vocabulary, int64_t columns) {
  Submission submission(plan);
  with_format(bits, scale_form, [&](auto format) {
    const PackedWeight<decltype(format)> table{static_cast<const uint8_t*>(codes),
                                               static_cast<const uint8_t*>(scales), vocabulary,
                                               columns};
    submission.append(LookupPacked<decltype(format)>{table, tokens, output, count});
  });
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
