// Numbers in low precision, as their bits. Rounding is to the nearest, ties to even.

#ifndef CRITERIA_ORT_LOW_H
#define CRITERIA_ORT_LOW_H

#include <math.h>
#include <stdint.h>
#include <string.h>

static inline uint32_t bits_of(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}

static inline uint16_t bfloat16(float x) {
  uint32_t bits = bits_of(x);
  if (x != x) return (uint16_t)(bits >> 16 | 0x40);
  return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static inline uint16_t float16(float x) {
  uint16_t sign = (uint16_t)(bits_of(x) >> 16 & 0x8000);
  float size = fabsf(x);
  if (x != x) return sign | 0x7e00;
  if (size >= 65520) return sign | 0x7c00; // halfway from the largest number to the next
  if (size < 0x1p-14f) return sign | (uint16_t)nearbyintf(size * 0x1p24f); // subnormal: multiples of 2⁻²⁴
  uint32_t bits = bits_of(size) - ((127 - 15) << 23);                      // the exponent as float16 has it
  return sign | (uint16_t)((bits + 0xfff + (bits >> 13 & 1)) >> 13);
}

static inline float from_float16(uint16_t h) {
  int exponent = h >> 10 & 31, fraction = h & 1023;
  float x = exponent == 0   ? ldexpf((float)fraction, -24)
            : exponent < 31 ? ldexpf((float)(1024 + fraction), exponent - 25)
            : fraction      ? NAN
                            : INFINITY;
  return h >> 15 ? -x : x;
}

#endif
