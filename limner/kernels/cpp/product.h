// The product of 8-bit or 4-bit weights with activations rounded to int8, both in groups of 32.
//
// One tile function does all sizes: up to kPanelBlocks blocks of 16 outputs by up to kTileTokens
// tokens, sums in registers. For up to a few tiles of tokens it reads the packed weights as they lie.
// With more tokens a panel's scales are widened, and its nibbles spread, once into scratch that stays
// in the first-level cache while all the tokens pass over it.
// Every output goes through the same operations in the same order on either way: results are equal
// to the bit for any number of tokens and threads.
#pragma once
#include <algorithm>
#include <array>
#include <utility>

#include "limner.h"
#include "packed_weights.h"
#include "partition.h"

namespace limner {

constexpr int64_t kPrefetchBytes = 2048;
// Up to so many tiles, spreading the nibbles again for each costs less than a detour by scratch.
constexpr int64_t kFewTiles = 3;
// A panel's share of the inputs stays in the first-level cache: 2 blocks x 20 groups x 512 bytes.
constexpr int64_t kBlockGroups = 20;

// Where a tile's sums go: `columns` are left from the first block to the end of the row.
struct Destination {
  float* output;
  int64_t stride, columns;
  const float* bias;
  bool starts, ends;  // whether the tile has the first, the last inputs

  float* at(int block, int token) const { return output + token * stride + block * kLanes; }
  int64_t left(int block) const { return columns - block * kLanes; }
};

// Packed weights as they lie in memory.
template <class Format>
struct PackedReader {
  const uint8_t* codes;
  const uint8_t* scales;
  int64_t code_stride, scale_stride;  // from one block to the next
  // How far ahead to fetch, in bytes; after `groups_left` groups that is past the end of the block,
  // where `skip` bytes have to be passed over to what is read next.
  int64_t ahead, groups_left, skip;
  int64_t group = 0;

  Codes load_step(int block, int step) const {
    constexpr int kLines = PackedWeight<Format>::kCodeBytes / 64;
    const uint8_t* from = codes + block * code_stride;
    // Fetches are spread among the loads: in a burst they would fill the queue to memory.
    if (step * kLines % 8 < kLines) prefetch_second_level(from + step * kLines / 8 * 64 + ahead);
    return packed_codes<Format>(from, step);
  }
  Floats scale(int block, int row) const {
    return Format::Scales::get(scales + block * scale_stride, group, row);
  }
  void next_group() {
    codes += PackedWeight<Format>::kCodeBytes;
    group++;
    if (--groups_left == 0) ahead += skip;
  }
};

// Rows of scales of a group: one for each part of it, and the minimum.
template <class Format>
constexpr int kScaleRows = Format::kParts + (Format::kHasMinimum ? 1 : 0);

// A panel made ready in scratch: floats for scales, a byte for each code.
template <class Format>
struct PanelReader {
  const uint8_t* codes;
  const float* scales;  // [group][row of scales][kPanelBlocks][16]
  int64_t code_stride;
  const uint8_t* ahead;  // next panel, fetched into the second level meanwhile
  int64_t ahead_stride, ahead_lines;

  Codes load_step(int block, int step) const {
    const uint8_t* p = codes + block * code_stride + 64 * step;
    return Format::kBits == 8 ? load_eight(p) : load_codes(p);
  }
  Floats scale(int block, int row) const {
    return load(scales + (row * kPanelBlocks + block) * kLanes);
  }
  void next_group() {
    for (int64_t line = 0; line < ahead_lines; line++) {
      for (int block = 0; block < kPanelBlocks; block++) {
        prefetch_second_level(ahead + block * ahead_stride + 64 * line);
      }
    }
    ahead += PackedWeight<Format>::kCodeBytes;
    codes += kGroup * kLanes;
    scales += kScaleRows<Format> * kPanelBlocks * kLanes;
  }
};

inline float word_as_float(const int32_t* word) {
  float value;
  std::memcpy(&value, word, sizeof value);
  return value;
}

// Adds a part of a group, its integer sums done, to the float sums.
template <class Format, class Reader, int kBlocks, int kTokens>
inline void add_part(const Reader& weights, const int32_t* record, int part,
                     const Ints (&dots)[kBlocks][kTokens], Floats (&sums)[kBlocks][kTokens]) {
  LIMNER_UNROLL
  for (int block = 0; block < kBlocks; block++) {
    const Floats scale = weights.scale(block, part);
    const Floats minimum = Format::kHasMinimum ? weights.scale(block, 1) : zeros();
    LIMNER_UNROLL
    for (int token = 0; token < kTokens; token++) {
      const Floats act_scale = broadcast(word_as_float(record + kScaleWord * kTokens + token));
      const Floats dot_float = to_floats(dots[block][token]);
      if (Format::kHasMinimum) {
        const Floats total = broadcast(word_as_float(record + kTotalWord * kTokens + token));
        const Floats group = fused(dot_float, scale, total * minimum);
        sums[block][token] = fused(group, act_scale, sums[block][token]);
      } else {
        sums[block][token] = fused(dot_float, scale * act_scale, sums[block][token]);
      }
    }
  }
}

// The sums of a tile so far, as its earlier inputs left them in the output.
template <int kBlocks, int kTokens>
inline void resume(const Destination& to, Floats (&sums)[kBlocks][kTokens]) {
  LIMNER_UNROLL
  for (int block = 0; block < kBlocks; block++) {
    LIMNER_UNROLL
    for (int token = 0; token < kTokens; token++) {
      sums[block][token] = load_first(to.at(block, token), to.left(block));
    }
  }
}

template <int kBlocks, int kTokens>
inline void add_bias(const Destination& to, Floats (&sums)[kBlocks][kTokens]) {
  LIMNER_UNROLL
  for (int block = 0; block < kBlocks; block++) {
    const Floats bias = load_first(to.bias + block * kLanes, to.left(block));
    LIMNER_UNROLL
    for (int token = 0; token < kTokens; token++) sums[block][token] = sums[block][token] + bias;
  }
}

template <int kBlocks, int kTokens>
inline void finish(const Destination& to, Floats (&sums)[kBlocks][kTokens]) {
  if (to.ends && to.bias != nullptr) add_bias<kBlocks, kTokens>(to, sums);
  const bool whole = to.columns >= kBlocks * kLanes;
  LIMNER_UNROLL
  for (int block = 0; block < kBlocks; block++) {
    LIMNER_UNROLL
    for (int token = 0; token < kTokens; token++) {
      if (whole) {
        store(to.at(block, token), sums[block][token]);
      } else {
        store_first(to.at(block, token), sums[block][token], to.left(block));
      }
    }
  }
}

// The integer sums of a part of a group: eight steps of four inputs, or half of them.
template <class Format, class Reader, int kBlocks, int kTokens>
inline void dot_part(const Reader& weights, const int32_t* record, int part,
                     Ints (&dots)[kBlocks][kTokens]) {
  constexpr int kSteps = 8 / Format::kParts;
  LIMNER_UNROLL
  for (int token = 0; token < kTokens; token++) {
    const CodeSums sums{record[kOffsetWord * kTokens + token],
                        Format::kParts > 1 ? record[kFirstWord * kTokens + token] : 0};
    const Ints start = broadcast(Format::start(sums, part));
    LIMNER_UNROLL
    for (int block = 0; block < kBlocks; block++) dots[block][token] = start;
  }
  LIMNER_UNROLL
  for (int i = 0; i < kSteps; i++) {
    const int step = part * kSteps + i;
    Codes codes[kBlocks];
    LIMNER_UNROLL
    for (int block = 0; block < kBlocks; block++) codes[block] = weights.load_step(block, step);
    LIMNER_UNROLL
    for (int token = 0; token < kTokens; token++) {
      Ints activations = broadcast(record[step * kTokens + token]);
      if (kBlocks > 1) keep_in_register(activations);
      LIMNER_UNROLL
      for (int block = 0; block < kBlocks; block++) {
        dots[block][token] = dot(dots[block][token], codes[block], activations);
      }
    }
  }
}

template <class Format, class Reader, int kBlocks, int kTokens>
void product_tile(const Reader& from, const int32_t* record, int64_t groups,
                  const Destination& to) {
  // Given by reference and copied here, into registers: a reader passed by value is copied in wide
  // words on the stack, which wait for the narrow ones it was just made of to leave the processor.
  Reader weights = from;
  Floats sums[kBlocks][kTokens];
  LIMNER_UNROLL
  for (int block = 0; block < kBlocks; block++) {
    LIMNER_UNROLL
    for (int token = 0; token < kTokens; token++) sums[block][token] = zeros();
  }
  if (!to.starts) resume<kBlocks, kTokens>(to, sums);
  for (int64_t group = 0; group < groups; group++) {
    LIMNER_UNROLL
    for (int part = 0; part < Format::kParts; part++) {
      Ints dots[kBlocks][kTokens];
      dot_part<Format, Reader, kBlocks, kTokens>(weights, record, part, dots);
      add_part<Format, Reader, kBlocks, kTokens>(weights, record, part, dots, sums);
    }
    weights.next_group();
    record += kRecordWords * kTokens;
  }
  finish<kBlocks, kTokens>(to, sums);
}

template <class Reader>
using TileFunction = void (*)(const Reader&, const int32_t*, int64_t, const Destination&);

// product_tile for each number of tokens from 1.
template <class Format, class Reader, int... kCounts>
constexpr std::array<TileFunction<Reader>, kTileTokens> tile_functions(
    std::integer_sequence<int, kCounts...>) {
  return {product_tile<Format, Reader, kPanelBlocks, kCounts + 1>...};
}

template <class Format, class Reader>
void run_tile(int64_t tokens, const Reader& weights, const int32_t* records, int64_t groups,
              const Destination& to) {
  static constexpr auto functions = tile_functions<Format, Reader>(
      std::make_integer_sequence<int, kTileTokens>());
  functions[static_cast<size_t>(tokens - 1)](weights, records, groups, to);
}

template <class Format>
struct QuantisedProduct {
  PackedWeight<Format> weight;
  Tiles<int32_t> input;
  const float* bias;
  float* output;
  int64_t tokens;

  std::vector<Access> accesses() const {
    return {input.access(),
            writes(output, tokens * weight.outputs * 4, Split::kColumns, weight.outputs)};
  }

  void operator()(Worker& worker) const {
    // Outputs are padded to whole panels, so there is no remainder.
    const Range blocks = share_columns(worker, weight.outputs);
    const int32_t* tiles = input.of(worker);
    for (int64_t block = blocks.begin; block < blocks.end; block += kPanelBlocks) {
      if (tokens == 1) {
        one_token(block, tiles);
      } else if (tokens <= kFewTiles * kTileTokens) {
        few_tokens(block, tiles);
      } else {
        many_tokens(block, tiles, worker);
      }
    }
  }

 private:
  using Panel = typename Format::Panel;

  Destination destination(int64_t block, int64_t token, bool starts, bool ends) const {
    const int64_t column = block * kLanes;
    return {output + token * weight.outputs + column, weight.outputs, weight.outputs - column,
            bias == nullptr ? nullptr : bias + column, starts, ends};
  }

  // Bound by memory, which gives most to a single stream: block after block, not side by side.
  void one_token(int64_t panel, const int32_t* tiles) const {
    const int64_t groups = weight.groups();
    for (int64_t block = panel; block < panel + kPanelBlocks; block++) {
      const PackedReader<Format> reader{
          weight.codes_of(block, 0), weight.scales_of(block), 0, 0, kPrefetchBytes, 0, 0};
      product_tile<Format, PackedReader<Format>, 1, 1>(reader, tiles, groups,
                                                       destination(block, 0, true, true));
    }
  }

  void few_tokens(int64_t block, const int32_t* tiles) const {
    const int64_t groups = weight.groups();
    const int64_t block_bytes = groups * PackedWeight<Format>::kCodeBytes;
    const TokenTiles layout{tokens};
    // One pass over a panel fetches what it will read itself, several fetch the next panel.
    const bool one_pass = layout.count() == 1;
    const int64_t ahead = one_pass ? kPrefetchBytes : kPanelBlocks * block_bytes;
    const int64_t until_end = groups - kPrefetchBytes / PackedWeight<Format>::kCodeBytes;
    for (int64_t tile = 0; tile < layout.count(); tile++) {
      const PackedReader<Format> reader{weight.codes_of(block, 0), weight.scales_of(block),
                                        block_bytes, Format::Scales::bytes(groups), ahead,
                                        one_pass ? std::max(until_end, int64_t{1}) : 0,
                                        (kPanelBlocks - 1) * block_bytes};
      const int64_t start = layout.start(tile);
      run_tile<Format, PackedReader<Format>>(layout.size(tile), reader,
                                             tiles + start * groups * kRecordWords, groups,
                                             destination(block, start, true, true));
    }
  }

  void many_tokens(int64_t block, const int32_t* tiles, Worker& worker) const {
    const int64_t groups = weight.groups(), parts = blocks_of(groups, kBlockGroups);
    const TokenTiles layout{tokens};
    for (int64_t part = 0; part < parts; part++) {
      const Range range{groups * part / parts, groups * (part + 1) / parts};
      PanelReader<Panel> reader = prepare(block, range, worker);
      const int64_t lines = PackedWeight<Format>::kCodeBytes / 64;
      const int64_t lines_each = blocks_of(lines, layout.count());
      for (int64_t tile = 0; tile < layout.count(); tile++) {
        const int64_t start = layout.start(tile), size = layout.size(tile);
        reader.ahead_lines = tile * lines_each < lines ? lines_each : 0;
        run_tile<Panel, PanelReader<Panel>>(
            size, reader, tiles + (start * groups + range.begin * size) * kRecordWords,
            range.end - range.begin, destination(block, start, part == 0, part == parts - 1));
        reader.ahead += lines_each * 64;
      }
    }
  }

  // Widens the scales and spreads the nibbles of `kPanelBlocks` blocks into the thread's scratch.
  PanelReader<Panel> prepare(int64_t block, Range groups, Worker& worker) const {
    constexpr int64_t kRows = kScaleRows<Format> * kPanelBlocks * kLanes;
    const int64_t count = groups.end - groups.begin;
    uint8_t* spread = static_cast<uint8_t*>(
        worker.scratch.reserve(static_cast<size_t>(kBlockGroups * (kRows * 4 + kPanelBlocks * 512))));
    float* scales = reinterpret_cast<float*>(spread + kBlockGroups * kPanelBlocks * 512);
    for (int i = 0; i < kPanelBlocks; i++) {
      for (int64_t group = 0; group < count; group++) {
        for (int row = 0; row < kScaleRows<Format>; row++) {
          store(scales + group * kRows + (row * kPanelBlocks + i) * kLanes,
                Format::Scales::get(weight.scales_of(block + i), groups.begin + group, row));
        }
        if (Format::kBits == 8) continue;
        const uint8_t* codes = weight.codes_of(block + i, groups.begin + group);
        uint8_t* to = spread + (i * count + group) * 512;
        LIMNER_UNROLL
        for (int s = 0; s < 8; s++) store_codes(to + 64 * s, packed_codes<Format>(codes, s));
      }
    }
    const uint8_t* packed = weight.codes_of(block, groups.begin);
    const int64_t packed_stride = weight.groups() * PackedWeight<Format>::kCodeBytes;
    const bool more = groups.end < weight.groups();
    const uint8_t* ahead = more ? packed + count * PackedWeight<Format>::kCodeBytes
                                : weight.codes_of(block + kPanelBlocks, 0);
    if (Format::kBits == 8) return {packed, scales, packed_stride, ahead, packed_stride, 0};
    return {spread, scales, count * 512, ahead, packed_stride, 0};
  }
};

template <class Format>
void append_quantised_product(Plan* plan, const Rows& input, const void* codes, const void* scales,
                              const float* bias, float* output, int64_t outputs) {
  Submission submission(plan);
  const Tiles<int32_t> tiles = append_quantised(submission, input);
  const PackedWeight<Format> weight{static_cast<const uint8_t*>(codes),
                                    static_cast<const uint8_t*>(scales), outputs, input.columns};
  submission.append(QuantisedProduct<Format>{weight, tiles, bias, output, input.count});
}

// In files of their own, since the compiler takes long over each format.
using AppendProduct = void (*)(Plan*, const Rows&, const void*, const void*, const float*, float*,
                               int64_t);
AppendProduct product_with_minimum(bool super);

}  // namespace limner
