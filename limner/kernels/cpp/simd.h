// A layer of sixteen lanes that every kernel is written in.
//
// One header a processor family says how sixteen floats (Floats), sixteen integers (Ints) and
// sixty-four weight codes (Codes: four consecutive inputs of sixteen output rows) are held, and how
// many of them fit the registers:
//   kPanelBlocks x kTileTokens         the tile of the matrix product, in blocks of 16 rows x tokens
//   kAttentionRows x kAttentionVectors the tile of the products of attention
// Operations act lane by lane: load, store, broadcast, + - * /, fused(a, b, c) = a * b + c, maximum,
// minimum, where_less(a, b, yes, no), to_nearest (ties to even), bits_of and from_bits, store_int8,
// load_half (IEEE half), load_bfloat, load_bytes, and
//   transpose(rows)                        16 x 16
//   dot(accumulator, codes, activations)  adds the product of four codes and four activations (int8)
// Codes are unsigned where kUnsignedCodes, else signed. What follows is derived from those.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(LIMNER_AVX512)
#include "simd_avx512.h"
#elif defined(LIMNER_AVX2)
#include "simd_avx2.h"
#elif defined(LIMNER_NEON)
#include "simd_neon.h"
#else
#define LIMNER_PORTABLE
#include "simd_portable.h"
#endif

// The compiler keeps an array of vectors in registers only if every index is a constant by the time
// it looks: each loop over such an array must be unrolled early, which -O3 alone does not do. Where
// vectors are arrays themselves nothing is won, and compiling takes ten times as long.
#if defined(LIMNER_PORTABLE)
#define LIMNER_UNROLL
#elif defined(__clang__)
#define LIMNER_UNROLL _Pragma("clang loop unroll(full)")
#else
#define LIMNER_UNROLL _Pragma("GCC unroll 16")
#endif

namespace limner {

constexpr int kLanes = 16;
constexpr float kInfinity = __builtin_inff();
constexpr float kNaN = __builtin_nanf("");

inline int64_t blocks_of(int64_t count, int64_t size) { return (count + size - 1) / size; }

#if !defined(LIMNER_AVX512)
// Pairwise, in an order that is the same everywhere.
template <class Value, class Lane, class Join>
inline Lane reduce(const Value& value, Join join) {
  Lane lanes[kLanes];
  std::memcpy(lanes, &value, sizeof lanes);
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; i++) lanes[i] = join(lanes[i], lanes[i + width]);
  }
  return lanes[0];
}
inline float sum(const Floats& a) {
  return reduce<Floats, float>(a, [](float x, float y) { return x + y; });
}
inline float largest(const Floats& a) {
  return reduce<Floats, float>(a, [](float x, float y) { return x > y ? x : y; });
}
inline int32_t sum(const Ints& a) {
  return reduce<Ints, int32_t>(a, [](int32_t x, int32_t y) { return x + y; });
}
inline int32_t largest(const Ints& a) {
  return reduce<Ints, int32_t>(a, [](int32_t x, int32_t y) { return x > y ? x : y; });
}

// Out of line: these run at the end of a row only, and inlined they would swell every kernel.
[[gnu::noinline]] inline Floats load_partly(const float* p, int64_t count) {
  float lanes[kLanes] = {};
  for (int i = 0; i < count; i++) lanes[i] = p[i];
  return load(lanes);
}
[[gnu::noinline]] inline void store_partly(float* p, const Floats& a, int64_t count) {
  float lanes[kLanes];
  store(lanes, a);
  for (int i = 0; i < count; i++) p[i] = lanes[i];
}
inline void transpose(Floats (&rows)[kLanes]) {
  float square[kLanes][kLanes], turned[kLanes][kLanes];
  for (int i = 0; i < kLanes; i++) store(square[i], rows[i]);
  for (int i = 0; i < kLanes; i++) {
    for (int j = 0; j < kLanes; j++) turned[j][i] = square[i][j];
  }
  for (int i = 0; i < kLanes; i++) rows[i] = load(turned[i]);
}
#endif

// The first `count` lanes of a row that may end there (or before: count may be negative). The others
// are read as zero.
inline Floats load_first(const float* p, int64_t count) {
  return count >= kLanes ? load(p) : load_partly(p, count);
}
inline void store_first(float* p, const Floats& a, int64_t count) {
  if (count >= kLanes) {
    store(p, a);
  } else {
    store_partly(p, a, count);
  }
}

inline Floats zeros() { return broadcast(0.0f); }

inline Floats magnitude(Floats a) { return from_bits(bits_of(a) & broadcast(0x7FFFFFFF)); }

inline void prefetch(const void* p) { __builtin_prefetch(p); }
inline void prefetch_second_level(const void* p) { __builtin_prefetch(p, 0, 2); }

}  // namespace limner
