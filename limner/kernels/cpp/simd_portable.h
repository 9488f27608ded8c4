// Sixteen lanes as an array, in loops short and plain enough for the compiler to vectorise.
// See simd.h for what each name promises.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

namespace limner {

constexpr const char* kInstructionSet = "portable";
constexpr int kPanelBlocks = 1;
constexpr int kTileTokens = 2;
constexpr int kAttentionRows = 1;
constexpr int kAttentionVectors = 2;
constexpr bool kUnsignedCodes = false;

struct Floats {
  float v[16];
};
struct Ints {
  int32_t v[16];
};
struct Codes {
  uint8_t v[64];
};

#define LIMNER_LANES(Type, expression) \
  Type out;                            \
  for (int i = 0; i < 16; i++) out.v[i] = (expression); \
  return out

inline Floats load(const float* p) { LIMNER_LANES(Floats, p[i]); }
inline void store(float* p, const Floats& a) { std::memcpy(p, a.v, sizeof a.v); }
inline Floats broadcast(float x) { LIMNER_LANES(Floats, x); }
inline Floats operator+(const Floats& a, const Floats& b) { LIMNER_LANES(Floats, a.v[i] + b.v[i]); }
inline Floats operator-(const Floats& a, const Floats& b) { LIMNER_LANES(Floats, a.v[i] - b.v[i]); }
inline Floats operator*(const Floats& a, const Floats& b) { LIMNER_LANES(Floats, a.v[i] * b.v[i]); }
inline Floats operator/(const Floats& a, const Floats& b) { LIMNER_LANES(Floats, a.v[i] / b.v[i]); }
// Two roundings: std::fma would be a library call where the processor has no such instruction.
inline Floats fused(const Floats& a, const Floats& b, const Floats& c) {
  LIMNER_LANES(Floats, a.v[i] * b.v[i] + c.v[i]);
}
inline Floats maximum(const Floats& a, const Floats& b) {
  LIMNER_LANES(Floats, a.v[i] > b.v[i] ? a.v[i] : b.v[i]);
}
inline Floats minimum(const Floats& a, const Floats& b) {
  LIMNER_LANES(Floats, a.v[i] < b.v[i] ? a.v[i] : b.v[i]);
}
inline Floats where_less(const Floats& a, const Floats& b, const Floats& yes, const Floats& no) {
  LIMNER_LANES(Floats, a.v[i] < b.v[i] ? yes.v[i] : no.v[i]);
}

inline Ints load(const int32_t* p) { LIMNER_LANES(Ints, p[i]); }
inline void store(int32_t* p, const Ints& a) { std::memcpy(p, a.v, sizeof a.v); }
inline Ints broadcast(int32_t x) { LIMNER_LANES(Ints, x); }
inline Ints operator+(const Ints& a, const Ints& b) { LIMNER_LANES(Ints, a.v[i] + b.v[i]); }
inline Ints operator&(const Ints& a, const Ints& b) { LIMNER_LANES(Ints, a.v[i] & b.v[i]); }
inline Ints operator|(const Ints& a, const Ints& b) { LIMNER_LANES(Ints, a.v[i] | b.v[i]); }
inline Ints maximum(const Ints& a, const Ints& b) {
  LIMNER_LANES(Ints, a.v[i] > b.v[i] ? a.v[i] : b.v[i]);
}
template <int kBits>
inline Ints shift_left(const Ints& a) {
  LIMNER_LANES(Ints, static_cast<int32_t>(static_cast<uint32_t>(a.v[i]) << kBits));
}
inline Ints bits_of(const Floats& a) {
  Ints out;
  std::memcpy(out.v, a.v, sizeof out.v);
  return out;
}
inline Floats from_bits(const Ints& a) {
  Floats out;
  std::memcpy(out.v, a.v, sizeof out.v);
  return out;
}
inline Floats to_floats(const Ints& a) { LIMNER_LANES(Floats, static_cast<float>(a.v[i])); }
// Adding and subtracting 1.5 * 2^23 rounds to the nearest integer (ties to even) below 2^22.
inline Ints to_nearest(const Floats& a) {
  LIMNER_LANES(Ints, static_cast<int32_t>((a.v[i] + 12582912.0f) - 12582912.0f));
}
inline void store_int8(int8_t* p, const Ints& a) {
  for (int i = 0; i < 16; i++) p[i] = static_cast<int8_t>(a.v[i]);
}

// The exponent is moved from bias 15 to 127 by a product, which also normalises subnormal halves.
inline float half_to_float(uint16_t half) {
  const uint32_t magnitude = half & 0x7FFFu;
  uint32_t bits = magnitude << 13;
  float value;
  std::memcpy(&value, &bits, 4);
  value *= 0x1p112f;
  std::memcpy(&bits, &value, 4);
  if (magnitude >= 0x7C00u) bits = 0x7F800000u | (magnitude << 13);
  bits |= static_cast<uint32_t>(half & 0x8000u) << 16;
  std::memcpy(&value, &bits, 4);
  return value;
}
inline Floats load_half(const uint16_t* p) { LIMNER_LANES(Floats, half_to_float(p[i])); }
inline Floats load_bfloat(const uint16_t* p) {
  Ints bits;
  for (int i = 0; i < 16; i++) bits.v[i] = static_cast<int32_t>(static_cast<uint32_t>(p[i]) << 16);
  return from_bits(bits);
}

inline Floats load_bytes(const uint8_t* p) { LIMNER_LANES(Floats, static_cast<float>(p[i])); }
inline Floats load_bytes(const int8_t* p) { LIMNER_LANES(Floats, static_cast<float>(p[i])); }

inline Codes load_codes(const uint8_t* p) {
  Codes out;
  std::memcpy(out.v, p, sizeof out.v);
  return out;
}
inline void store_codes(uint8_t* p, const Codes& a) { std::memcpy(p, a.v, sizeof a.v); }
inline Codes low_nibbles(const Codes& a) {
  Codes out;
  for (int i = 0; i < 64; i++) out.v[i] = a.v[i] & 15;
  return out;
}
inline Codes high_nibbles(const Codes& a) {
  Codes out;
  for (int i = 0; i < 64; i++) out.v[i] = a.v[i] >> 4;
  return out;
}
// Codes stored with an offset of 128 as signed bytes: flipping the top bit subtracts it.
inline Codes as_signed(const Codes& a) {
  Codes out;
  for (int i = 0; i < 64; i++) out.v[i] = a.v[i] ^ 0x80;
  return out;
}
template <int kBits>
inline Codes shift_left(const Codes& a) {
  Codes out;
  for (int i = 0; i < 64; i++) out.v[i] = static_cast<uint8_t>(a.v[i] << kBits);
  return out;
}
inline Codes operator|(const Codes& a, const Codes& b) {
  Codes out;
  for (int i = 0; i < 64; i++) out.v[i] = a.v[i] | b.v[i];
  return out;
}
inline Codes masked(const Codes& a, uint8_t bits) {
  Codes out;
  for (int i = 0; i < 64; i++) out.v[i] = a.v[i] & bits;
  return out;
}
inline Ints dot(const Ints& accumulator, const Codes& codes, const Ints& activations) {
  int8_t four[4];
  std::memcpy(four, activations.v, 4);  // a broadcast: every lane holds the same four
  Ints out;
  for (int i = 0; i < 16; i++) {
    int32_t total = accumulator.v[i];
    for (int k = 0; k < 4; k++) {
      total += static_cast<int16_t>(static_cast<int8_t>(codes.v[4 * i + k])) * four[k];
    }
    out.v[i] = total;
  }
  return out;
}
inline void keep_in_register(Ints&) {}

#undef LIMNER_LANES

}  // namespace limner
