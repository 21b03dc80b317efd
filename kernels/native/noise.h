// Gaussian noise from Philox4x32-10 (Salmon et al., SC 2011, section 4.3) and Box & Muller (1958).
//
// Bits are used as in kernels/reference.py. Logarithm, sine and cosine are polynomials, so values
// agree with the reference to 1e-6.
#pragma once

#include <cstdint>

#include "simd.h"

namespace {

struct Counter {
  Word word[4];
};

// The upper and the lower halves of the 64-bit products of 32-bit lanes.
inline void multiply(Word a, uint32_t factor, Word& high, Word& low) {
  constexpr uint64_t kUpper = 0xffffffff00000000;
  const Word b = factor - Word{};
  const Wide even = multiply_even(a, b);
  const Wide odd = multiply_even((Word)((Wide)a >> 32), b);
  high = (Word)((even >> 32) | (odd & kUpper));
  low = (Word)((even & ~kUpper) | (odd << 32));
}

inline void philox(Counter& c, uint64_t seed) {
  uint32_t key0 = static_cast<uint32_t>(seed);
  uint32_t key1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    Word high0, low0, high1, low1;
    multiply(c.word[0], 0xD2511F53, high0, low0);
    multiply(c.word[2], 0xCD9E8D57, high1, low1);
    c.word[0] = high1 ^ c.word[1] ^ key0;
    c.word[1] = low1;
    c.word[2] = high0 ^ c.word[3] ^ key1;
    c.word[3] = low0;
    key0 += 0x9E3779B9;
    key1 += 0xBB67AE85;
  }
}

inline Float to_float(Int x) { return __builtin_convertvector(x, Float); }

// Natural logarithm of normal numbers below 1 (the polynomial of Cephes' logf).
inline Float logarithm(Float x) {
  const Int bits = (Int)x;
  Float exponent = to_float((bits >> 23) - 126);
  Float m = (Float)((bits & 0x007fffff) | 0x3f000000);  // in [0.5, 1)
  const Int small = m < 0.707106781186547524f;
  exponent -= small ? Float{} + 1.0f : Float{};
  m = (small ? m + m : m) - 1.0f;
  const Float square = m * m;
  Float p = 7.0376836292e-2f * m - 1.1514610310e-1f;
  p = p * m + 1.1676998740e-1f;
  p = p * m - 1.2420140846e-1f;
  p = p * m + 1.4249322787e-1f;
  p = p * m - 1.6668057665e-1f;
  p = p * m + 2.0000714765e-1f;
  p = p * m - 2.4999993993e-1f;
  p = p * m + 3.3333331174e-1f;
  const Float tail = p * m * square - 2.12194440e-4f * exponent - 0.5f * square;
  return (m + tail) + 0.693359375f * exponent;
}

// Two Gaussians from two words. The radius uses the upper 23 bits of `a` and the angle the upper
// 24 bits of `b`.
inline void box_muller(Word a, Word b, Float& cosine, Float& sine) {
  const Float uniform = (to_float((Int)(a >> 9)) + 0.5f) * 0x1p-23f;
  const Float radius = root(-2.0f * logarithm(uniform));

  // The angle is quarter * pi/2 + y * pi/2 with y in [-0.5, 0.5). y is exact, and the polynomials
  // are evaluated at y.
  const Int turn = (Int)(b >> 8);
  const Int quarter = (turn + (1 << 21)) >> 22;
  const Float y = to_float(turn - (quarter << 22)) * 0x1p-22f;
  const Float s = y * y;
  Float odd = 7.968141e-2f - 4.60483e-3f * s;
  odd = odd * s - 6.4596363e-1f;
  odd = y * 1.57079637f + y * (odd * s - 4.37113900e-8f);
  Float even = 2.08602885e-2f - 9.04021668e-4f * s;
  even = even * s - 2.53669244e-1f;
  even = 1.0f - s * (even * s + 1.23370054f);

  const Int swapped = (quarter & 1) != 0;
  const Int sine_sign = (quarter & 2) << 30;
  const Int cosine_sign = ((quarter + 1) & 2) << 30;
  cosine = radius * (Float)((Int)(swapped ? odd : even) ^ cosine_sign);
  sine = radius * (Float)((Int)(swapped ? even : odd) ^ sine_sign);
}

// Adds std * noise to a row of codes.
inline void add_noise(float* codes, int64_t dim, float std, uint64_t id, uint64_t step,
                      uint64_t seed) {
  constexpr int64_t kChunk = 4 * kLanes;
  Word lane;
  for (int i = 0; i < kLanes; ++i) lane[i] = i;
  for (int64_t begin = 0; begin < dim; begin += kChunk) {
    const Word zero = {};
    Counter c = {{zero + static_cast<uint32_t>(id), zero + static_cast<uint32_t>(id >> 32),
                  lane + static_cast<uint32_t>(begin / 4), zero + static_cast<uint32_t>(step)}};
    philox(c, seed);
    Float gaussian[4];
    box_muller(c.word[0], c.word[1], gaussian[0], gaussian[1]);
    box_muller(c.word[2], c.word[3], gaussian[2], gaussian[3]);
    float ordered[kChunk];
    for (int i = 0; i < kLanes; ++i) {
      for (int word = 0; word < 4; ++word) ordered[4 * i + word] = gaussian[word][i];
    }
    const int64_t count = dim - begin < kChunk ? dim - begin : kChunk;
    for (int64_t i = 0; i < count; ++i) codes[begin + i] += std * ordered[i];
  }
}

}  // namespace
