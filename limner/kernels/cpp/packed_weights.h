// Weights as the matrix product reads them: blocks of 16 output rows, interleaved.
//
// Within a block the codes of four consecutive inputs of each of the 16 rows follow one another, so
// that one load feeds 16 outputs. Outputs are padded with zero rows to a multiple of 32. A group is 32
// inputs, eight steps of four:
//   8 bits: codes[block][group][8][16][4]  uint8 = code + 128
//   4 bits: codes[block][group][4][16][4]  low nibbles step 2 i, high nibbles step 2 i + 1
//   6 bits: codes[block][group][6][16][4]  four of nibbles as above, then two with the upper two bits:
//           of steps 4 i, 4 i + 1, 4 i + 2, 4 i + 3 from the lowest bits to the highest
// Scales, one of three forms:
//   halves:   [block][group][16], value = scale * code; or with a minimum [block][group][2][16],
//             value = scale * nibble + minimum
//   minima in super-blocks of 8 groups (GGUF's Q4_K), 320 bytes: halves d[16] and m[16], then for each
//             group uint8 scale[16], minimum[16]; value = d * scale * nibble - m * minimum
//   halves of groups, in super-blocks (GGUF's Q6_K), 288 bytes: halves d[16], then for each 16 inputs
//             int8 scale[16]; value = d * scale * code
// Codes without a minimum are signed: 128, 8 or 32 is taken off.
#pragma once
#include <cstdint>

#include "simd.h"
#include "token_tiles.h"

namespace limner {

constexpr int64_t kSuperGroups = 8;

inline Floats load_half_at(const uint8_t* p) {
  return load_half(reinterpret_cast<const uint16_t*>(p));
}

// Each says how many bytes the scales of a block take, and reads a row of 16 of them.
template <int kRows>
struct HalfScales {
  static int64_t bytes(int64_t groups) { return groups * kRows * 32; }
  static Floats get(const uint8_t* block, int64_t group, int row) {
    return load_half_at(block + (group * kRows + row) * 32);
  }
};

struct SuperMinimumScales {
  static int64_t bytes(int64_t groups) { return groups / kSuperGroups * 320; }
  static Floats get(const uint8_t* block, int64_t group, int row) {
    const uint8_t* super = block + group / kSuperGroups * 320;
    const Floats factor = load_half_at(super + 32 * row);
    const Floats value = factor * load_bytes(super + 64 + group % kSuperGroups * 32 + 16 * row);
    return row == 0 ? value : zeros() - value;
  }
};

struct SuperHalfScales {
  static int64_t bytes(int64_t groups) { return groups / kSuperGroups * 288; }
  static Floats get(const uint8_t* block, int64_t group, int row) {
    const uint8_t* super = block + group / kSuperGroups * 288;
    const uint8_t* scales = super + 32 + group % kSuperGroups * 32 + 16 * row;
    return load_half_at(super) * load_bytes(reinterpret_cast<const int8_t*>(scales));
  }
};

// What the sums of a group's int8 activations are: -128 times that of all 32, and of the first 16.
struct CodeSums {
  int32_t offset, first;
};

// `kParts`: parts of a group with a scale each. `start` is what the integer sum of a part begins at,
// so that unsigned codes come out as signed ones. `Panel`: the format once scales are floats and
// codes bytes.
struct EightBits {
  static constexpr int kBits = 8, kOffset = 128, kParts = 1;
  static constexpr bool kHasMinimum = false;
  using Scales = HalfScales<1>;
  using Panel = EightBits;
  static int32_t start(const CodeSums& sums, int) { return kUnsignedCodes ? sums.offset : 0; }
};

struct FourBits {
  static constexpr int kBits = 4, kOffset = 8, kParts = 1;
  static constexpr bool kHasMinimum = false;
  using Scales = HalfScales<1>;
  using Panel = FourBits;
  // -8 * sum from -128 * sum: exact.
  static int32_t start(const CodeSums& sums, int) { return sums.offset / 16; }
};

struct FourBitsMinimum {
  static constexpr int kBits = 4, kOffset = 0, kParts = 1;
  static constexpr bool kHasMinimum = true;
  using Scales = HalfScales<2>;
  using Panel = FourBitsMinimum;
  static int32_t start(const CodeSums&, int) { return 0; }
};

struct FourBitsSuper : FourBitsMinimum {
  using Scales = SuperMinimumScales;
};

struct SixBits {
  static constexpr int kBits = 6, kOffset = 32, kParts = 2;
  static constexpr bool kHasMinimum = false;
  using Scales = SuperHalfScales;
  using Panel = SixBits;
  static int32_t start(const CodeSums& sums, int part) {
    return part == 0 ? -32 * sums.first : sums.offset / 4 + 32 * sums.first;
  }
};

template <class Format>
struct PackedWeight {
  const uint8_t* codes;
  const uint8_t* scales;
  int64_t outputs, inputs;

  static constexpr int64_t kCodeBytes = kGroup * kLanes * Format::kBits / 8;

  int64_t groups() const { return inputs / kGroup; }
  const uint8_t* codes_of(int64_t block, int64_t group) const {
    return codes + (block * groups() + group) * kCodeBytes;
  }
  const uint8_t* scales_of(int64_t block) const {
    return scales + block * Format::Scales::bytes(groups());
  }
};

// Codes of eight bits as `dot` wants them.
inline Codes load_eight(const uint8_t* p) {
#if defined(LIMNER_AVX512) || defined(__AVXVNNI__)
  return load_codes(p);
#else
  return as_signed(load_codes(p));
#endif
}

inline Codes nibbles(const uint8_t* group, int step) {
  const Codes both = load_codes(group + 64 * (step / 2));
  return step % 2 == 0 ? low_nibbles(both) : high_nibbles(both);
}

// The upper two of six bits, in their place.
inline Codes upper_bits(const Codes& four, int step) {
  switch (step % 4) {
    case 0:
      return masked(shift_left<4>(four), 0x30);
    case 1:
      return masked(shift_left<2>(four), 0x30);
    case 2:
      return masked(four, 0x30);
    default:
      return shift_left<2>(masked(high_nibbles(four), 0x0C));
  }
}

// The codes of inputs 4 * step .. 4 * step + 3 of a group.
template <class Format>
inline Codes packed_codes(const uint8_t* group, int step) {
  if (Format::kBits == 8) return load_eight(group + 64 * step);
  if (Format::kBits == 4) return nibbles(group, step);
  return nibbles(group, step) | upper_bits(load_codes(group + 256 + 64 * (step / 4)), step);
}

// Calls `work` with the format of those numbers; `scales` 0: halves, 1: with minima, 2: super-blocks.
template <class Work>
void with_format(int32_t bits, int32_t scales, const Work& work) {
  if (bits == 8) return work(EightBits());
  if (bits == 6) return work(SixBits());
  if (scales == 2) return work(FourBitsSuper());
  if (scales == 1) return work(FourBitsMinimum());
  work(FourBits());
}

}  // namespace limner
