/* The Zipf order of pages, theta 0.99, as `touch.c` touches them and `floor_zipf.c` goes through them again.
 * Gray et al., "Quickly generating billion-record synthetic databases" (1994), as YCSB uses it; ranks are scattered over the area. */
#ifndef VSWAP_BENCH_ZIPF_H
#define VSWAP_BENCH_ZIPF_H
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

struct zipf {
  uint64_t pages;
  double zeta_n, eta;
  uint32_t *shuffled; /* rank -> page */
};
static const double zipf_theta = 0.99;

static inline uint64_t xorshift(uint64_t *x) {
  *x ^= *x << 13;
  *x ^= *x >> 7;
  *x ^= *x << 17;
  return *x;
}

/* The page that a random number of 64 bits stands for. */
static inline uint64_t zipf_page(const struct zipf *z, uint64_t random) {
  double u = (double)(random >> 11) / 9007199254740992.0, uz = u * z->zeta_n;
  if (uz < 1.0) return z->shuffled[0];
  if (uz < 1.0 + pow(0.5, zipf_theta)) return z->shuffled[1];
  uint64_t rank = (uint64_t)((double)z->pages * pow(z->eta * u - z->eta + 1.0, 1.0 / (1.0 - zipf_theta)));
  return z->shuffled[rank < z->pages ? rank : z->pages - 1];
}

static struct zipf zipf_order(uint64_t pages) {
  struct zipf z = {.pages = pages, .shuffled = malloc(pages * sizeof *z.shuffled)};
  double zeta2 = 1.0 + pow(0.5, zipf_theta);
  uint64_t x = 88172645463325252ull;
  if (!z.shuffled) { perror("malloc"); exit(2); }
  for (uint64_t i = 1; i <= pages; i++) z.zeta_n += 1.0 / pow((double)i, zipf_theta);
  z.eta = (1.0 - pow(2.0 / (double)pages, 1.0 - zipf_theta)) / (1.0 - zeta2 / z.zeta_n);
  for (uint64_t i = 0; i < pages; i++) z.shuffled[i] = (uint32_t)i;
  for (uint64_t i = pages - 1; i > 0; i--) {
    uint64_t j = xorshift(&x) % (i + 1);
    uint32_t t = z.shuffled[i];
    z.shuffled[i] = z.shuffled[j];
    z.shuffled[j] = t;
  }
  return z;
}
#endif
