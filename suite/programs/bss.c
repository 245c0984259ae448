/* A program whose memory makes no system call at all: 300 MiB of .bss (BSS_MIB). */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#ifndef BSS_MIB
#define BSS_MIB 300
#endif
#define WORDS ((uint64_t)BSS_MIB << 17)

static uint64_t field[WORDS];

int main(void) {
  uint64_t sum = 0, x = 1;
  for (uint64_t i = 0; i < WORDS; i++) sum |= field[i];
  printf("untouched: %llx\n", (unsigned long long)sum);
  for (uint64_t i = 0; i < WORDS; i++) field[i] = i % 5 ? i >> 3 : i * 0x9E3779B97F4A7C15ull;
  for (uint64_t i = 0; i < 100000; i++) {
    x ^= x << 13; x ^= x >> 7; x ^= x << 17;
    sum += field[x % WORDS];
    field[x % WORDS] ^= x;
  }
  for (uint64_t i = 0; i < WORDS; i++) sum = (sum << 5 | sum >> 59) ^ field[i];
  printf("sum: %llx\n", (unsigned long long)sum);
  return 0;
}
