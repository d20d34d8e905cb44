#ifndef CRITERIA_ORT_PHILOX_H
#define CRITERIA_ORT_PHILOX_H

#include <stdint.h>

// Philox4x32-10 (Salmon et al.: Parallel Random Numbers: As Easy as 1, 2, 3; SC 2011).
static inline void philox(uint32_t c[4], uint64_t key) {
  uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
  for (int round = 0; round < 10; round++) {
    uint64_t a = 0xd2511f53ull * c[0], b = 0xcd9e8d57ull * c[2];
    c[0] = (uint32_t)(b >> 32) ^ c[1] ^ k0;
    c[1] = (uint32_t)b;
    c[2] = (uint32_t)(a >> 32) ^ c[3] ^ k1;
    c[3] = (uint32_t)a;
    k0 += 0x9e3779b9;
    k1 += 0xbb67ae85;
  }
}

#endif
