// Weights as the matrix product reads them: blocks of 16 output rows, interleaved.
//
// Within a block the codes of four consecutive inputs of each of the 16 rows follow one another, so
// that one load feeds 16 outputs. Outputs are padded with zero rows to a multiple of 32.
//   8 bits: codes[block][inputs / 4][16][4]  uint8 = code + 128, scales[block][group][16]
//   4 bits: codes[block][inputs / 8][16][4]  low nibbles inputs k .. k+3, high nibbles k+4 .. k+7,
//           scales[block][group][16], or with a minimum [block][group][2][16]
// Scales and minima are IEEE halves; a group is 32 inputs. Values:
//   8 bits scale * code; 4 bits scale * (nibble - 8); 4 bits with a minimum scale * nibble + minimum
#pragma once
#include <cstdint>

#include "simd.h"
#include "token_tiles.h"

namespace limner {

struct EightBits {
  static constexpr int kBits = 8;
  static constexpr bool kHasMinimum = false;
  static int32_t start(int32_t offset) { return kUnsignedCodes ? offset : 0; }
};

struct FourBits {
  static constexpr int kBits = 4;
  static constexpr bool kHasMinimum = false;
  static int32_t start(int32_t offset) { return offset / 16; }  // -8 * sum from -128 * sum: exact
};

struct FourBitsMinimum {
  static constexpr int kBits = 4;
  static constexpr bool kHasMinimum = true;
  static int32_t start(int32_t) { return 0; }
};

template <class Format>
struct PackedWeight {
  const uint8_t* codes;
  const uint16_t* scales;
  int64_t outputs, inputs;

  static constexpr int64_t kCodeBytes = kGroup * kLanes * Format::kBits / 8;
  static constexpr int64_t kHalves = Format::kHasMinimum ? 2 * kLanes : kLanes;

  int64_t groups() const { return inputs / kGroup; }
  const uint8_t* codes_of(int64_t block, int64_t group) const {
    return codes + (block * groups() + group) * kCodeBytes;
  }
  const uint16_t* scales_of(int64_t block, int64_t group) const {
    return scales + (block * groups() + group) * kHalves;
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

// The codes of inputs 4 * step .. 4 * step + 3 of a group.
template <class Format>
inline Codes packed_codes(const uint8_t* group, int step) {
  if (Format::kBits == 8) return load_eight(group + 64 * step);
  const Codes both = load_codes(group + 64 * (step / 2));
  return step % 2 == 0 ? low_nibbles(both) : high_nibbles(both);
}

}  // namespace limner
