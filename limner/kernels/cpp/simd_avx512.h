// Sixteen lanes in one AVX-512 register; integer products by VNNI. See simd.h for what each name promises.
#pragma once
#include <immintrin.h>

#include <cstdint>

namespace limner {

constexpr const char* kInstructionSet = "avx512vnni";
// 2 x 16 rows by 6 tokens: 12 integer and 12 float accumulators leave 8 of 32 registers for operands.
constexpr int kPanelBlocks = 2;
constexpr int kTileTokens = 6;
constexpr int kAttentionRows = 4;
constexpr int kAttentionVectors = 4;
// vpdpbusd multiplies unsigned codes, so the offset of 128 (or 8) is taken off through the accumulator.
constexpr bool kUnsignedCodes = true;

struct Floats {
  __m512 v;
};
struct Ints {
  __m512i v;
};
struct Codes {
  __m512i v;
};

inline Floats load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline void store(float* p, Floats a) { _mm512_storeu_ps(p, a.v); }
inline Floats broadcast(float x) { return {_mm512_set1_ps(x)}; }
inline Floats operator+(Floats a, Floats b) { return {_mm512_add_ps(a.v, b.v)}; }
inline Floats operator-(Floats a, Floats b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline Floats operator*(Floats a, Floats b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline Floats operator/(Floats a, Floats b) { return {_mm512_div_ps(a.v, b.v)}; }
inline Floats fused(Floats a, Floats b, Floats c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline Floats maximum(Floats a, Floats b) { return {_mm512_max_ps(a.v, b.v)}; }
inline Floats minimum(Floats a, Floats b) { return {_mm512_min_ps(a.v, b.v)}; }
inline Floats where_less(Floats a, Floats b, Floats yes, Floats no) {
  return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ), no.v, yes.v)};
}
inline float sum(Floats a) { return _mm512_reduce_add_ps(a.v); }
inline float largest(Floats a) { return _mm512_reduce_max_ps(a.v); }
inline __mmask16 first_lanes(int64_t count) {
  return static_cast<__mmask16>(count > 0 ? (1u << count) - 1 : 0);
}
inline Floats load_partly(const float* p, int64_t count) {
  return {_mm512_maskz_loadu_ps(first_lanes(count), p)};
}
inline void store_partly(float* p, Floats a, int64_t count) {
  _mm512_mask_storeu_ps(p, first_lanes(count), a.v);
}

inline Ints load(const int32_t* p) { return {_mm512_loadu_si512(p)}; }
inline Ints broadcast(int32_t x) { return {_mm512_set1_epi32(x)}; }
inline Ints operator+(Ints a, Ints b) { return {_mm512_add_epi32(a.v, b.v)}; }
inline Ints operator&(Ints a, Ints b) { return {_mm512_and_si512(a.v, b.v)}; }
inline Ints operator|(Ints a, Ints b) { return {_mm512_or_si512(a.v, b.v)}; }
inline Ints maximum(Ints a, Ints b) { return {_mm512_max_epi32(a.v, b.v)}; }
template <int kBits>
inline Ints shift_left(Ints a) {
  return {_mm512_slli_epi32(a.v, kBits)};
}
inline int32_t sum(Ints a) { return _mm512_reduce_add_epi32(a.v); }
inline int32_t largest(Ints a) { return _mm512_reduce_max_epi32(a.v); }
inline Ints bits_of(Floats a) { return {_mm512_castps_si512(a.v)}; }
inline Floats from_bits(Ints a) { return {_mm512_castsi512_ps(a.v)}; }
inline Floats to_floats(Ints a) { return {_mm512_cvtepi32_ps(a.v)}; }
inline Ints to_nearest(Floats a) { return {_mm512_cvtps_epi32(a.v)}; }
inline void store_int8(int8_t* p, Ints a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtsepi32_epi8(a.v));
}

inline Floats load_half(const uint16_t* p) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
inline Floats load_bfloat(const uint16_t* p) {
  const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(wide, 16))};
}

inline Floats load_bytes(const uint8_t* p) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return {_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes))};
}
inline Floats load_bytes(const int8_t* p) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes))};
}

inline Codes load_codes(const uint8_t* p) { return {_mm512_loadu_si512(p)}; }
inline void store_codes(uint8_t* p, Codes a) { _mm512_storeu_si512(p, a.v); }
inline Codes low_nibbles(Codes a) { return {_mm512_and_si512(a.v, _mm512_set1_epi8(15))}; }
inline Codes high_nibbles(Codes a) {
  return {_mm512_and_si512(_mm512_srli_epi16(a.v, 4), _mm512_set1_epi8(15))};
}
template <int kBits>
inline Codes shift_left(Codes a) {
  return {_mm512_slli_epi16(a.v, kBits)};
}
inline Codes operator|(Codes a, Codes b) { return {_mm512_or_si512(a.v, b.v)}; }
inline Codes masked(Codes a, uint8_t bits) {
  return {_mm512_and_si512(a.v, _mm512_set1_epi8(static_cast<char>(bits)))};
}
inline Ints dot(Ints accumulator, Codes codes, Ints activations) {
  return {_mm512_dpbusd_epi32(accumulator.v, codes.v, activations.v)};
}
// Keeps a broadcast in a register: folded into each product it would be loaded once a row block.
inline void keep_in_register(Ints& a) { __asm__("" : "+v"(a.v)); }

// Pairs of rows are interleaved ever more coarsely: numbers, pairs, quarters, halves.
inline void transpose(Floats (&rows)[16]) {
  __m512 pairs[16], fours[16];
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    pairs[i] = _mm512_unpacklo_ps(rows[i].v, rows[i + 1].v);
    pairs[i + 1] = _mm512_unpackhi_ps(rows[i].v, rows[i + 1].v);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    fours[i] = _mm512_shuffle_ps(pairs[i], pairs[i + 2], 0x44);
    fours[i + 1] = _mm512_shuffle_ps(pairs[i], pairs[i + 2], 0xEE);
    fours[i + 2] = _mm512_shuffle_ps(pairs[i + 1], pairs[i + 3], 0x44);
    fours[i + 3] = _mm512_shuffle_ps(pairs[i + 1], pairs[i + 3], 0xEE);
  }
  // fours[4 * b + c] holds, in each quarter q, column 4 * q + c of rows 4 * b .. 4 * b + 3.
#pragma GCC unroll 4
  for (int c = 0; c < 4; c++) {
    const __m512 even_low = _mm512_shuffle_f32x4(fours[c], fours[4 + c], 0x88);
    const __m512 odd_low = _mm512_shuffle_f32x4(fours[c], fours[4 + c], 0xDD);
    const __m512 even_high = _mm512_shuffle_f32x4(fours[8 + c], fours[12 + c], 0x88);
    const __m512 odd_high = _mm512_shuffle_f32x4(fours[8 + c], fours[12 + c], 0xDD);
    rows[c].v = _mm512_shuffle_f32x4(even_low, even_high, 0x88);
    rows[8 + c].v = _mm512_shuffle_f32x4(even_low, even_high, 0xDD);
    rows[4 + c].v = _mm512_shuffle_f32x4(odd_low, odd_high, 0x88);
    rows[12 + c].v = _mm512_shuffle_f32x4(odd_low, odd_high, 0xDD);
  }
}

}  // namespace limner
