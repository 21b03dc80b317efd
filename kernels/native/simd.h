// Vectors that fill the widest registers of the instruction set that this file is compiled for.
//
// Arithmetic, comparisons and selection use the vector extensions of GCC and Clang. Intrinsics are
// used only for instructions that the extensions cannot express. Everything is in an anonymous
// namespace, so that code compiled for one instruction set is never linked into another's.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

typedef float Float __attribute__((vector_size(4 * kLanes)));
typedef int32_t Int __attribute__((vector_size(4 * kLanes)));
typedef uint32_t Word __attribute__((vector_size(4 * kLanes)));
typedef uint64_t Wide __attribute__((vector_size(4 * kLanes)));
typedef double Double __attribute__((vector_size(4 * kLanes)));
typedef uint16_t Half __attribute__((vector_size(2 * kLanes)));
constexpr int kDoubles = kLanes / 2;

inline Float load(const float* from) {
  Float x;
  std::memcpy(&x, from, sizeof x);
  return x;
}

inline void store(float* to, Float x) { std::memcpy(to, &x, sizeof x); }

inline Double load(const double* from) {
  Double x;
  std::memcpy(&x, from, sizeof x);
  return x;
}

// Loads the first `count` lanes and sets the others to zero.
inline Float load(const float* from, int64_t count) {
  Float x = {};
  std::memcpy(&x, from, count * sizeof(float));
  return x;
}

inline void store(float* to, Float x, int64_t count) { std::memcpy(to, &x, count * sizeof(float)); }

inline Float root(Float x) {
#if defined(__AVX512F__)
  return _mm512_sqrt_ps(x);
#elif defined(__AVX2__)
  return _mm256_sqrt_ps(x);
#elif defined(__SSE2__)
  return _mm_sqrt_ps(x);
#else
  for (int lane = 0; lane < kLanes; ++lane) x[lane] = __builtin_sqrtf(x[lane]);
  return x;
#endif
}

inline Double root(Double x) {
#if defined(__AVX512F__)
  return _mm512_sqrt_pd(x);
#elif defined(__AVX2__)
  return _mm256_sqrt_pd(x);
#elif defined(__SSE2__)
  return _mm_sqrt_pd(x);
#else
  for (int lane = 0; lane < kDoubles; ++lane) x[lane] = __builtin_sqrt(x[lane]);
  return x;
#endif
}

// The 64-bit products of the even 32-bit lanes.
inline Wide multiply_even(Word a, Word b) {
#if defined(__AVX512F__)
  return (Wide)_mm512_mul_epu32((__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
  return (Wide)_mm256_mul_epu32((__m256i)a, (__m256i)b);
#elif defined(__SSE2__)
  return (Wide)_mm_mul_epu32((__m128i)a, (__m128i)b);
#else
  return ((Wide)a & 0xffffffff) * ((Wide)b & 0xffffffff);
#endif
}

inline bool any(Int mask) {
#if defined(__AVX512F__)
  return _mm512_test_epi32_mask((__m512i)mask, (__m512i)mask) != 0;
#elif defined(__AVX2__)
  return _mm256_movemask_ps((__m256)mask) != 0;
#elif defined(__SSE2__)
  return _mm_movemask_ps((__m128)mask) != 0;
#else
  Wide pairs = (Wide)mask;
  uint64_t all = 0;
  for (int lane = 0; lane < kDoubles; ++lane) all |= pairs[lane];
  return all != 0;
#endif
}

// A bfloat16, the upper half of a float.
struct Bf16 {
  uint16_t bits;
};

inline Float widen(Half x) { return (Float)(__builtin_convertvector(x, Word) << 16); }

// Rounds to the nearest bfloat16, and to the even one of two. NaN stays NaN.
inline Half narrow(Float x) {
  const Word bits = (Word)x, rounded = bits + 0x7fff + ((bits >> 16) & 1);
  const Word upper = (x == x ? rounded : bits | 0x400000) >> 16;
  return __builtin_convertvector(upper, Half);
}

inline Float load(const Bf16* from) {
  Half x;
  std::memcpy(&x, from, sizeof x);
  return widen(x);
}

inline void store(Bf16* to, Float x) {
  const Half bits = narrow(x);
  std::memcpy(to, &bits, sizeof bits);
}

inline Float load(const Bf16* from, int64_t count) {
  Half x = {};
  std::memcpy(&x, from, count * sizeof(Bf16));
  return widen(x);
}

inline void store(Bf16* to, Float x, int64_t count) {
  const Half bits = narrow(x);
  std::memcpy(to, &bits, count * sizeof(Bf16));
}

// Loads and stores whole vectors, or only their first lanes.
struct AllLanes {
  template <typename Value>
  Float load(const Value* from) const {
    return ::load(from);
  }
  template <typename Value>
  void store(Value* to, Float x) const {
    ::store(to, x);
  }
};

struct FirstLanes {
  int64_t count;
  template <typename Value>
  Float load(const Value* from) const {
    return ::load(from, count);
  }
  template <typename Value>
  void store(Value* to, Float x) const {
    ::store(to, x, count);
  }
};

inline double sum(Double x) {
  double total = 0;
  for (int lane = 0; lane < kDoubles; ++lane) total += x[lane];
  return total;
}

}  // namespace
