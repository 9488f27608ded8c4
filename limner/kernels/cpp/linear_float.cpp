// The product of float32 or bfloat16 weights with float32 activations.
//
// Weights are interleaved by 16 outputs, values[block][input][16], and padded to 32 outputs. A tile of
// kPanelBlocks blocks by up to kTileTokens tokens adds its inputs one after the other, so a result
// does not depend on how many tokens there are.
#include <array>
#include <utility>

#include "limner.h"
#include "partition.h"
#include "token_tiles.h"

namespace limner {
namespace {

// A panel's part of the inputs stays in the first-level cache: 2 blocks x 192 x 64 bytes.
constexpr int64_t kPartInputs = 192;

inline Floats load_weights(const float* p) { return load(p); }
inline Floats load_weights(const uint16_t* p) { return load_bfloat(p); }

// kTokens tokens against one panel, inputs [0, inputs) of a part; sums wait in the output between
// parts.
template <class Weight, int kTokens>
void float_tile(const Weight* weights, int64_t block_stride, const float* values, int64_t inputs,
                bool starts, float* output, int64_t stride, int64_t columns) {
  Floats sums[kPanelBlocks][kTokens];
  LIMNER_UNROLL
  for (int block = 0; block < kPanelBlocks; block++) {
    LIMNER_UNROLL
    for (int token = 0; token < kTokens; token++) sums[block][token] = zeros();
  }
  for (int block = 0; block < kPanelBlocks && !starts; block++) {
    LIMNER_UNROLL
    for (int token = 0; token < kTokens; token++) {
      const float* from = output + token * stride + block * kLanes;
      sums[block][token] = load_first(from, columns - block * kLanes);
    }
  }
  for (int64_t input = 0; input < inputs; input++) {
    Floats weight[kPanelBlocks];
    LIMNER_UNROLL
    for (int block = 0; block < kPanelBlocks; block++) {
      weight[block] = load_weights(weights + block * block_stride + input * kLanes);
    }
    LIMNER_UNROLL
    for (int token = 0; token < kTokens; token++) {
      const Floats value = broadcast(values[input * kTokens + token]);
      LIMNER_UNROLL
      for (int block = 0; block < kPanelBlocks; block++) {
        sums[block][token] = fused(weight[block], value, sums[block][token]);
      }
    }
  }
  LIMNER_UNROLL
  for (int block = 0; block < kPanelBlocks; block++) {
    LIMNER_UNROLL
    for (int token = 0; token < kTokens; token++) {
      float* to = output + token * stride + block * kLanes;
      store_first(to, sums[block][token], columns - block * kLanes);
    }
  }
}

template <class Weight>
using FloatTile = void (*)(const Weight*, int64_t, const float*, int64_t, bool, float*, int64_t,
                           int64_t);

template <class Weight, int... kCounts>
constexpr std::array<FloatTile<Weight>, kTileTokens> float_tiles(
    std::integer_sequence<int, kCounts...>) {
  return {float_tile<Weight, kCounts + 1>...};
}

template <class Weight>
struct FloatProduct {
  const Weight* weights;
  Tiles<float> input;
  const float* bias;  // may be null
  float* output;
  int64_t tokens, inputs, outputs;

  std::vector<Access> accesses() const {
    return {input.access(),
            writes(output, tokens * outputs * 4, Split::kColumns, outputs)};
  }

  void operator()(Worker& worker) const {
    const Range blocks = share_columns(worker, outputs);
    const float* tiles = input.of(worker);
    for (int64_t block = blocks.begin; block < blocks.end; block += kPanelBlocks) {
      for (int64_t begin = 0; begin < inputs; begin += kPartInputs) {
        part(block, begin, tiles);
      }
      if (bias != nullptr) add_bias(block);
    }
  }

 private:
  void part(int64_t block, int64_t begin, const float* tiles) const {
    static constexpr auto functions =
        float_tiles<Weight>(std::make_integer_sequence<int, kTileTokens>());
    const TokenTiles layout{tokens};
    const int64_t count = begin + kPartInputs < inputs ? kPartInputs : inputs - begin;
    const int64_t column = block * kLanes, block_stride = inputs * kLanes;
    for (int64_t tile = 0; tile < layout.count(); tile++) {
      const int64_t start = layout.start(tile), size = layout.size(tile);
      functions[static_cast<size_t>(size - 1)](
          weights + block * block_stride + begin * kLanes, block_stride,
          tiles + start * inputs + begin * size, count, begin == 0,
          output + start * outputs + column, outputs, outputs - column);
    }
  }

  void add_bias(int64_t block) const {
    for (int64_t i = 0; i < kPanelBlocks; i++) {
      const int64_t column = (block + i) * kLanes, left = outputs - column;
      for (int64_t token = 0; token < tokens; token++) {
        float* to = output + token * outputs + column;
        store_first(to, load_first(to, left) + load_first(bias + column, left), left);
      }
    }
  }
};

template <class Weight>
void append_product(Plan* plan, const Rows& input, const Weight* weights, const float* bias,
                    float* output, int64_t outputs) {
  Submission submission(plan);
  const Tiles<float> tiles = append_float_tiles(submission, input);
  submission.append(FloatProduct<Weight>{weights, tiles, bias, output, input.count, input.columns,
                                         outputs});
}

}  // namespace
}  // namespace limner

using namespace limner;

void limner_linear_float(Plan* plan, const float* input, int64_t tokens, int64_t inputs,
                         int64_t stride, const void* weights, int32_t is_bfloat, const float* bias,
                         float* output, int64_t outputs) {
  const Rows rows{input, tokens, inputs, stride};
  if (is_bfloat != 0) {
    append_product(plan, rows, static_cast<const uint16_t*>(weights), bias, output, outputs);
  } else {
    append_product(plan, rows, static_cast<const float*>(weights), bias, output, outputs);
  }
}
