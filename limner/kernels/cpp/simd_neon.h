// Sixteen lanes in four NEON registers; integer products by the dot-product extension (Armv8.2).
// See simd.h for what each name promises.
#pragma once
#include <arm_neon.h>

#include <cstdint>

namespace limner {

constexpr const char* kInstructionSet = "neon";
// 2 tokens take 8 integer and 8 float registers of 32; the rest holds codes, scales and products.
constexpr int kPanelBlocks = 1;
constexpr int kTileTokens = 2;
constexpr int kAttentionRows = 2;
constexpr int kAttentionVectors = 2;
constexpr bool kUnsignedCodes = false;

struct Floats {
  float32x4_t v[4];
};
struct Ints {
  int32x4_t v[4];
};
struct Codes {
  uint8x16_t v[4];
};

// Builds a value from one expression for each quarter.
#define LIMNER_QUARTERS(Type, expression) \
  Type out;                               \
  for (int i = 0; i < 4; i++) out.v[i] = (expression); \
  return out

inline Floats load(const float* p) { LIMNER_QUARTERS(Floats, vld1q_f32(p + 4 * i)); }
inline void store(float* p, Floats a) {
  for (int i = 0; i < 4; i++) vst1q_f32(p + 4 * i, a.v[i]);
}
inline Floats broadcast(float x) { LIMNER_QUARTERS(Floats, vdupq_n_f32(x)); }
inline Floats operator+(Floats a, Floats b) { LIMNER_QUARTERS(Floats, vaddq_f32(a.v[i], b.v[i])); }
inline Floats operator-(Floats a, Floats b) { LIMNER_QUARTERS(Floats, vsubq_f32(a.v[i], b.v[i])); }
inline Floats operator*(Floats a, Floats b) { LIMNER_QUARTERS(Floats, vmulq_f32(a.v[i], b.v[i])); }
inline Floats operator/(Floats a, Floats b) { LIMNER_QUARTERS(Floats, vdivq_f32(a.v[i], b.v[i])); }
inline Floats fused(Floats a, Floats b, Floats c) {
  LIMNER_QUARTERS(Floats, vfmaq_f32(c.v[i], a.v[i], b.v[i]));
}
inline Floats maximum(Floats a, Floats b) { LIMNER_QUARTERS(Floats, vmaxq_f32(a.v[i], b.v[i])); }
inline Floats minimum(Floats a, Floats b) { LIMNER_QUARTERS(Floats, vminq_f32(a.v[i], b.v[i])); }
inline Floats where_less(Floats a, Floats b, Floats yes, Floats no) {
  LIMNER_QUARTERS(Floats, vbslq_f32(vcltq_f32(a.v[i], b.v[i]), yes.v[i], no.v[i]));
}

inline Ints load(const int32_t* p) { LIMNER_QUARTERS(Ints, vld1q_s32(p + 4 * i)); }
inline void store(int32_t* p, Ints a) {
  for (int i = 0; i < 4; i++) vst1q_s32(p + 4 * i, a.v[i]);
}
inline Ints broadcast(int32_t x) { LIMNER_QUARTERS(Ints, vdupq_n_s32(x)); }
inline Ints operator+(Ints a, Ints b) { LIMNER_QUARTERS(Ints, vaddq_s32(a.v[i], b.v[i])); }
inline Ints operator&(Ints a, Ints b) { LIMNER_QUARTERS(Ints, vandq_s32(a.v[i], b.v[i])); }
inline Ints operator|(Ints a, Ints b) { LIMNER_QUARTERS(Ints, vorrq_s32(a.v[i], b.v[i])); }
inline Ints maximum(Ints a, Ints b) { LIMNER_QUARTERS(Ints, vmaxq_s32(a.v[i], b.v[i])); }
template <int kBits>
inline Ints shift_left(Ints a) {
  LIMNER_QUARTERS(Ints, vshlq_n_s32(a.v[i], kBits));
}
inline Ints bits_of(Floats a) { LIMNER_QUARTERS(Ints, vreinterpretq_s32_f32(a.v[i])); }
inline Floats from_bits(Ints a) { LIMNER_QUARTERS(Floats, vreinterpretq_f32_s32(a.v[i])); }
inline Floats to_floats(Ints a) { LIMNER_QUARTERS(Floats, vcvtq_f32_s32(a.v[i])); }
inline Ints to_nearest(Floats a) { LIMNER_QUARTERS(Ints, vcvtnq_s32_f32(a.v[i])); }
inline void store_int8(int8_t* p, Ints a) {
  const int16x8_t low = vcombine_s16(vqmovn_s32(a.v[0]), vqmovn_s32(a.v[1]));
  const int16x8_t high = vcombine_s16(vqmovn_s32(a.v[2]), vqmovn_s32(a.v[3]));
  vst1q_s8(p, vcombine_s8(vqmovn_s16(low), vqmovn_s16(high)));
}

inline Floats load_half(const uint16_t* p) {
  LIMNER_QUARTERS(Floats, vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p + 4 * i))));
}
inline Floats load_bfloat(const uint16_t* p) {
  LIMNER_QUARTERS(Floats, vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p + 4 * i), 16)));
}

inline Floats load_bytes(const uint8_t* p) {
  const uint8x16_t bytes = vld1q_u8(p);
  const uint16x8_t low = vmovl_u8(vget_low_u8(bytes)), high = vmovl_u8(vget_high_u8(bytes));
  return {{vcvtq_f32_u32(vmovl_u16(vget_low_u16(low))), vcvtq_f32_u32(vmovl_u16(vget_high_u16(low))),
           vcvtq_f32_u32(vmovl_u16(vget_low_u16(high))), vcvtq_f32_u32(vmovl_u16(vget_high_u16(high)))}};
}
inline Floats load_bytes(const int8_t* p) {
  const int8x16_t bytes = vld1q_s8(p);
  const int16x8_t low = vmovl_s8(vget_low_s8(bytes)), high = vmovl_s8(vget_high_s8(bytes));
  return {{vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(low))),
           vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(high)))}};
}

inline Codes load_codes(const uint8_t* p) { LIMNER_QUARTERS(Codes, vld1q_u8(p + 16 * i)); }
inline void store_codes(uint8_t* p, Codes a) {
  for (int i = 0; i < 4; i++) vst1q_u8(p + 16 * i, a.v[i]);
}
inline Codes low_nibbles(Codes a) { LIMNER_QUARTERS(Codes, vandq_u8(a.v[i], vdupq_n_u8(15))); }
inline Codes high_nibbles(Codes a) { LIMNER_QUARTERS(Codes, vshrq_n_u8(a.v[i], 4)); }
// Codes stored with an offset of 128 as signed bytes: flipping the top bit subtracts it.
inline Codes as_signed(Codes a) { LIMNER_QUARTERS(Codes, veorq_u8(a.v[i], vdupq_n_u8(0x80))); }
template <int kBits>
inline Codes shift_left(Codes a) {
  LIMNER_QUARTERS(Codes, vshlq_n_u8(a.v[i], kBits));
}
inline Codes operator|(Codes a, Codes b) { LIMNER_QUARTERS(Codes, vorrq_u8(a.v[i], b.v[i])); }
inline Codes masked(Codes a, uint8_t bits) {
  LIMNER_QUARTERS(Codes, vandq_u8(a.v[i], vdupq_n_u8(bits)));
}
inline Ints dot(Ints accumulator, Codes codes, Ints activations) {
  LIMNER_QUARTERS(Ints, vdotq_s32(accumulator.v[i], vreinterpretq_s8_u8(codes.v[i]),
                                  vreinterpretq_s8_s32(activations.v[i])));
}
inline void keep_in_register(Ints&) {}

#undef LIMNER_QUARTERS

}  // namespace limner
