// Choosing a token from logits: the largest, or one drawn in proportion to e^(logit / temperature).
//
// Each row is worked on in equal parts, which do not depend on the number of threads; a last kernel
// puts a row's parts together in order.
#include <cmath>

#include "limner.h"
#include "pool.h"
#include "rows.h"
#include "vector_math.h"

namespace limner {
namespace {

constexpr int64_t kParts = 64;

Range part_of(int64_t columns, int64_t number) {
  return {columns * number / kParts, columns * (number + 1) / kParts};
}

// The largest of the columns of a part; not-a-number if one of them is, minus infinity if it is empty.
float find_peak(const float* row, const Range& part) {
  Floats high = broadcast(-kInfinity);
  Ints bits = broadcast(0);
  int64_t i = part.begin;
  for (; i + kLanes <= part.end; i += kLanes) {
    high = maximum(high, load(row + i));
    bits = maximum(bits, bits_of(magnitude(load(row + i))));
  }
  for (; i < part.end; i++) {
    high = maximum(high, broadcast(row[i]));
    bits = maximum(bits, bits_of(magnitude(broadcast(row[i]))));
  }
  return largest(bits) > 0x7F800000 ? kNaN : largest(high);
}

// Which part of a row has its largest number, the first of equals; not-a-number is the largest.
int64_t find_part(const float* peaks) {
  int64_t best = 0;
  for (int64_t part = 1; part < kParts && !std::isnan(peaks[best]); part++) {
    if (std::isnan(peaks[part]) || peaks[part] > peaks[best]) best = part;
  }
  return best;
}

// The column of a row's largest number.
int64_t find_column(const float* row, int64_t columns, const float* peaks) {
  const int64_t best = find_part(peaks);
  const Range part = part_of(columns, best);
  for (int64_t i = part.begin; i < part.end; i++) {
    if (row[i] == peaks[best] || std::isnan(row[i])) return i;
  }
  return 0;  // all parts before this one are empty, or all numbers minus infinity
}

struct PartPeaks {
  Rows input;
  float* peaks;  // [row][kParts]

  std::vector<Access> accesses() const {
    return {reads(input.data, input.bytes()), writes(peaks, input.count * kParts * 4)};
  }

  void operator()(Worker& worker) const {
    const Range mine = worker.share(input.count * kParts);
    for (int64_t unit = mine.begin; unit < mine.end; unit++) {
      const float* row = input.data + unit / kParts * input.stride;
      peaks[unit] = find_peak(row, part_of(input.columns, unit % kParts));
    }
  }
};

struct JoinPeaks {
  Rows input;
  const float* peaks;
  int64_t* output;

  std::vector<Access> accesses() const {
    return {reads(input.data, input.bytes()), reads(peaks, input.count * kParts * 4),
            writes(output, input.count * 8)};
  }

  void operator()(Worker& worker) const {
    const Range mine = worker.share(input.count);
    for (int64_t row = mine.begin; row < mine.end; row++) {
      output[row] =
          find_column(input.data + row * input.stride, input.columns, peaks + row * kParts);
    }
  }
};

// e^((x - peak) / temperature) of a row.
struct Weights {
  Floats shift, inverse;

  Weights(float peak, float temperature)
      : shift(broadcast(peak)), inverse(broadcast(1.0f / temperature)) {}
  // Of `count` numbers, at most sixteen, into `lanes`.
  void operator()(const float* from, int64_t count, float* lanes) const {
    store(lanes, exponential((load_first(from, count) - shift) * inverse));
  }
};

// In float64: a rare token's share of 150,000 would be lost in float32.
double sum_weights(const float* row, const Range& part, const Weights& weights) {
  double sums[kLanes] = {};
  for (int64_t i = part.begin; i < part.end; i += kLanes) {
    const int64_t count = part.end - i < kLanes ? part.end - i : kLanes;
    float lanes[kLanes];
    weights(row + i, count, lanes);
    for (int64_t lane = 0; lane < count; lane++) sums[lane] += static_cast<double>(lanes[lane]);
  }
  double total = 0.0;
  for (double sum : sums) total += sum;
  return total;
}

// Whether a row's weights have a sum: its largest number is finite and the temperature not 0.
bool has_weights(float peak, float temperature) { return std::isfinite(peak) && temperature > 0.0f; }

struct PartSums {
  Rows input;
  const float* temperatures;  // [row]
  const float* peaks;
  double* sums;  // [row][kParts]

  std::vector<Access> accesses() const {
    const int64_t units = input.count * kParts;
    return {reads(input.data, input.bytes()), reads(temperatures, input.count * 4),
            reads(peaks, units * 4), writes(sums, units * 8)};
  }

  void operator()(Worker& worker) const {
    const Range mine = worker.share(input.count * kParts);
    for (int64_t unit = mine.begin; unit < mine.end; unit++) {
      const int64_t row = unit / kParts;
      const float* of_row = peaks + row * kParts;
      const float peak = of_row[find_part(of_row)];
      if (!has_weights(peak, temperatures[row])) continue;
      sums[unit] = sum_weights(input.data + row * input.stride,
                               part_of(input.columns, unit % kParts), {peak, temperatures[row]});
    }
  }
};

struct Draw {
  PartSums parts;
  const double* numbers;  // [row], in [0, 1)
  int64_t* output;

  std::vector<Access> accesses() const {
    const int64_t rows = parts.input.count;
    std::vector<Access> list = parts.accesses();
    list.back().writes = false;
    list.push_back(reads(numbers, rows * 8));
    list.push_back(writes(output, rows * 8));
    return list;
  }

  void operator()(Worker& worker) const {
    const Range mine = worker.share(parts.input.count);
    for (int64_t row = mine.begin; row < mine.end; row++) output[row] = draw(row);
  }

 private:
  int64_t draw(int64_t row) const {
    const Rows& input = parts.input;
    const float* logits = input.data + row * input.stride;
    const float* peaks = parts.peaks + row * kParts;
    const float peak = peaks[find_part(peaks)], temperature = parts.temperatures[row];
    if (!std::isfinite(peak)) return -1;
    if (!has_weights(peak, temperature)) return find_column(logits, input.columns, peaks);
    const double* sums = parts.sums + row * kParts;
    double total = 0.0;
    for (int64_t part = 0; part < kParts; part++) total += sums[part];
    const double sought = numbers[row] * total;
    // Added up in the same order as the total, so that some part goes beyond what is sought.
    int64_t part = 0;
    double before = 0.0;
    while (part < kParts - 1 && before + sums[part] <= sought) before += sums[part++];
    return find(logits, part_of(input.columns, part), {peak, temperature}, before, sought);
  }

  // The first column at which the sum goes beyond `sought`; the last with any weight if rounding
  // kept it below.
  int64_t find(const float* logits, const Range& part, const Weights& weights, double reached,
               double sought) const {
    int64_t found = part.begin;
    for (int64_t i = part.begin; i < part.end; i += kLanes) {
      const int64_t count = part.end - i < kLanes ? part.end - i : kLanes;
      float lanes[kLanes];
      weights(logits + i, count, lanes);
      for (int64_t lane = 0; lane < count; lane++) {
        if (lanes[lane] > 0.0f) found = i + lane;
        reached += static_cast<double>(lanes[lane]);
        if (reached > sought) return found;
      }
    }
    return found;
  }
};

float* append_peaks(Submission& submission, const Rows& input, void* memory) {
  float* peaks = static_cast<float*>(memory);
  submission.append(PartPeaks{input, peaks});
  return peaks;
}

}  // namespace
}  // namespace limner

using namespace limner;

void limner_argmax(Plan* plan, const float* input, int64_t stride, int64_t* output, int64_t rows,
                   int64_t columns) {
  Submission submission(plan);
  const Rows logits{input, rows, columns, stride};
  void* memory = submission.between(static_cast<size_t>(rows * kParts) * sizeof(float));
  submission.append(JoinPeaks{logits, append_peaks(submission, logits, memory), output});
}

void limner_draw(Plan* plan, const float* input, int64_t stride, const float* temperatures,
                 const double* numbers, int64_t* output, int64_t rows, int64_t columns) {
  Submission submission(plan);
  const Rows logits{input, rows, columns, stride};
  const size_t units = static_cast<size_t>(rows * kParts);
  double* sums = static_cast<double*>(submission.between(units * (sizeof(double) + sizeof(float))));
  const PartSums parts{logits, temperatures, append_peaks(submission, logits, sums + units), sums};
  submission.append(parts);
  submission.append(Draw{parts, numbers, output});
}
