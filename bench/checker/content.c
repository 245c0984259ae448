/* What a page of a version holds. Kinds differ by page and version: zeroes, one word repeated, few distinct bytes, words that look
 * like pointers, text, noise that does not compress. All but the first two begin with the page's number and the version and end in a checksum. */
#define _GNU_SOURCE
#include "checker.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

uint64_t run_seed;

uint64_t mix(uint64_t x) { /* splitmix64's finaliser */
  x += 0x9E3779B97F4A7C15ull;
  x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ x >> 27) * 0x94D049BB133111EBull;
  return x ^ x >> 31;
}

uint64_t draw(uint64_t *state) { return mix((*state)++); }

double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

void fail(const char *what) {
  fprintf(stderr, "vswap-checker: %s: %s\n", what, strerror(errno));
  _exit(2);
}

void *shared_memory(size_t bytes) {
  void *at = mmap(0, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) fail("mmap of the shadow");
  return at;
}

static void fill_kind(uint64_t *w, uint64_t page, uint64_t full) {
  uint64_t key = mix(page * 0x100000001B3ull ^ full << 40 ^ run_seed), state = key;
  switch (key % 8) {
  case 0: memset(w, 0, PAGE); return;
  case 1:
    for (size_t i = 0; i < WORDS; i++) w[i] = key;
    return;
  case 2:
    for (size_t i = 0; i < WORDS; i++) w[i] = key & 0x0101010101010101ull;
    break;
  case 3:
  case 4: /* heap-like: pointers of one region, small integers, now and then something else */
    for (size_t i = 0; i < WORDS; i++) {
      uint64_t r = draw(&state);
      w[i] = r % 8 == 0 ? r : r % 2 ? 0x7f0000000000ull | (key & 0xFFF00000) | (r >> 40 & 0xFFF0) : r >> 56;
    }
    break;
  case 5:
    for (size_t i = 0; i < PAGE; i++) ((char *)w)[i] = "etaoin shrdlu"[(i % 7 ? (unsigned)(i * key >> 5) : (unsigned)mix(i ^ key)) % 13];
    break;
  case 6:
    memset(w, 0, PAGE);
    for (size_t i = 0; i < 8; i++) w[draw(&state) % WORDS] = draw(&state);
    break;
  default:
    for (size_t i = 0; i < WORDS; i++) w[i] = draw(&state);
  }
  w[0] = page;
  w[1] = full;
  uint64_t sum = 0;
  for (size_t i = 0; i < WORDS - 1; i++) sum = (sum << 7 | sum >> 57) + w[i];
  w[WORDS - 1] = sum;
}

static size_t poke_at(uint64_t page, uint32_t version) { return mix(page ^ (uint64_t)version << 32 ^ run_seed) % WORDS; }

void poke_page(void *at, uint64_t page, uint32_t version) {
  ((volatile uint64_t *)at)[poke_at(page, version)] = mix(page + version);
}

void write_page(void *at, uint64_t page, uint32_t version) {
  if (version == 0) { memset(at, 0, PAGE); return; }
  fill_kind(at, page, FULL(version));
  for (uint32_t poke = 1; poke <= POKES(version); poke++) poke_page(at, page, VERSION(FULL(version), poke));
}

int page_matches(const void *at, uint64_t page, uint32_t version) {
  uint64_t expected[WORDS];
  write_page(expected, page, version);
  return memcmp(at, expected, PAGE) == 0;
}

void check_page(const void *at, uint64_t page, uint32_t version, const char *where) {
  uint64_t expected[WORDS], found[WORDS];
  write_page(expected, page, version);
  if (memcmp(at, expected, PAGE) == 0) return;
  memcpy(found, at, PAGE); /* a second look: was it wrong for a moment only? */
  size_t i = 0;
  while (i < WORDS && found[i] == expected[i]) i++;
  int zero = 1;
  for (size_t k = 0; k < WORDS; k++) zero &= found[k] == 0;
  char line[512];
  int n = snprintf(line, sizeof line,
                   "vswap-checker: WRONG: %s, seed %llu, pid %d: page %llu (at %p) version %u.%u: %s word %zu holds %llx, expected %llx\n", where,
                   (unsigned long long)run_seed, (int)getpid(), (unsigned long long)page, at, FULL(version), POKES(version),
                   i == WORDS ? "right at a second look," : zero ? "all zero," : "first", i < WORDS ? i : 0,
                   (unsigned long long)found[i < WORDS ? i : 0], (unsigned long long)expected[i < WORDS ? i : 0]);
  if (write(2, line, (size_t)n) < 0) _exit(3);
  _exit(3);
}
