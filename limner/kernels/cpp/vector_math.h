// Functions of sixteen floats, written once over the layer in simd.h.
#pragma once
#include "simd.h"

namespace limner {

// e^x to about 1e-7 relative: 2^n times a polynomial on |r| <= ln 2 / 2 (coefficients of Cephes'
// expf). Below -87.3 it is 0, above 88.3 infinity; NaN stays NaN.
inline Floats exponential(Floats x) {
  const Floats low = broadcast(-87.3f), high = broadcast(88.3f);
  // A NaN survives as the second operand of these.
  const Floats bounded = minimum(high, maximum(low, x));
  const Ints n = to_nearest(bounded * broadcast(1.44269504f));
  const Floats whole = to_floats(n);
  // ln 2 in two parts, the first short enough that the product is exact.
  Floats r = fused(whole, broadcast(-0.693359375f), bounded);
  r = fused(whole, broadcast(2.12194440e-4f), r);
  Floats p = broadcast(1.9875691500e-4f);
  p = fused(p, r, broadcast(1.3981999507e-3f));
  p = fused(p, r, broadcast(8.3334519073e-3f));
  p = fused(p, r, broadcast(4.1665795894e-2f));
  p = fused(p, r, broadcast(1.6666665459e-1f));
  p = fused(p, r, broadcast(5.0000001201e-1f));
  const Floats value = fused(p, r * r, r) + broadcast(1.0f);
  const Floats power = from_bits(shift_left<23>(n + broadcast(127)));
  const Floats finite = where_less(x, low, zeros(), value * power);
  return where_less(high, x, broadcast(__builtin_inff()), finite);
}

inline Floats sigmoid(Floats x) {
  const Floats one = broadcast(1.0f);
  return one / (one + exponential(zeros() - x));
}

inline Floats hyperbolic_tangent(Floats x) {
  const Floats one = broadcast(1.0f), two = broadcast(2.0f);
  return one - two / (exponential(two * x) + one);
}

// To 1.5e-7 absolute (Abramowitz and Stegun 7.1.26).
inline Floats error_function(Floats x) {
  const Floats one = broadcast(1.0f), size = magnitude(x);
  const Floats t = one / fused(broadcast(0.3275911f), size, one);
  Floats p = broadcast(1.061405429f);
  p = fused(p, t, broadcast(-1.453152027f));
  p = fused(p, t, broadcast(1.421413741f));
  p = fused(p, t, broadcast(-0.284496736f));
  p = fused(p, t, broadcast(0.254829592f));
  const Floats value = one - p * t * exponential(zeros() - size * size);
  return where_less(x, zeros(), zeros() - value, value);
}

// Numbered as ACTIVATIONS in activations.py.
enum class Activation : int32_t { kRelu, kReluSquared, kGelu, kGeluTanh, kQuickGelu, kSilu, kTanh };

template <Activation kKind>
inline Floats activate(Floats x) {
  switch (kKind) {
    case Activation::kRelu:
      return maximum(zeros(), x);
    case Activation::kReluSquared: {
      const Floats positive = maximum(zeros(), x);
      return positive * positive;
    }
    case Activation::kGelu: {
      const Floats erf = error_function(x * broadcast(0.70710678f));
      return broadcast(0.5f) * x * (broadcast(1.0f) + erf);
    }
    case Activation::kGeluTanh: {
      // (1 + tanh u) / 2 = sigmoid(2 u)
      const Floats cube = fused(broadcast(0.044715f), x * x * x, x);
      return x * sigmoid(broadcast(2.0f * 0.79788456f) * cube);
    }
    case Activation::kQuickGelu:
      return x * sigmoid(broadcast(1.702f) * x);
    case Activation::kSilu:
      return x / (broadcast(1.0f) + exponential(zeros() - x));
    case Activation::kTanh:
      return hyperbolic_tangent(x);
  }
  return x;
}

}  // namespace limner
