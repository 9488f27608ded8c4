// Rows of floats, and what makes one row of another.
#pragma once
#include <cstdint>

namespace limner {

// Rows of floats, `stride` floats apart.
struct Rows {
  const float* data;
  int64_t count, columns, stride;
  int64_t bytes() const {
    return count > 0 ? ((count - 1) * stride + columns) * static_cast<int64_t>(sizeof(float)) : 0;
  }
};

// Root-mean-square normalisation of a row; `centred`, layer normalisation, subtracts the mean first.
struct RowNorm {
  const float* weight;  // may be null
  const float* bias;    // may be null
  float epsilon;
  bool centred;

  void operator()(const float* row, int64_t columns, float* output) const;
};

}  // namespace limner
