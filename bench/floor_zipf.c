/* The Zipf phase of `touch.c` under a pager that knows and has everything: 1 GiB of pages in 512 MiB, of which the pages that are out
 * take a PACKED-th of their size (as small as zstd with a dictionary makes them), and the rest is resident. The order of touches is drawn
 * beforehand and a replacement that sees each of them is played over it, so that nothing is decided at run time: a hand goes over
 * blocks of 512 pages and takes those that are among the least recently used quarter of all. Each miss costs what no pager
 * outside of the kernel gets round: a fault answered by userfaultfd with one page (always the same, which is in the cache), from a thread on
 * the same CPU, and its share of the moving of a block's victims out of the way, by a thread on another CPU. There is no codec, pool, device or
 * look-up: whoever has such things adds their time to every miss. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "floors.h"
#include "zipf.h"

#ifndef UFFDIO_MOVE
struct uffdio_move { uint64_t dst, src, len, mode; int64_t move; };
#define UFFDIO_MOVE _IOWR(UFFDIO, 0x05, struct uffdio_move)
#define UFFDIO_MOVE_MODE_ALLOW_SRC_HOLES (1 << 1)
#define UFFD_FEATURE_MOVE (1 << 16)
#endif

/* As many touches as `touch.c` makes in its phase of 4 s, and in the warm-up before. */
enum { ALL = 262144, WARM_UP = 500000, TOUCHES = 2200000, WINDOW = 512, SLACK = 64 };
#define PACKED 6.5
#define RESIDENT ((uint32_t)((ALL / 2 - ALL / PACKED) / (1 - 1 / PACKED)))

/* Victims of a block. */
struct eviction {
  uint32_t after; /* the touch whose miss makes it necessary */
  uint32_t block;
  uint64_t want[8], avoid[8]; /* what goes, and what is resident besides */
};

static char *at, *window;
static int managed, staging;
static uint32_t *order;
static struct eviction *evictions;
static uint32_t planned, done;
static atomic_uint position; /* touches made */
static atomic_uint answered;
static char source[PAGE] __attribute__((aligned(4096)));

static void *some(uint64_t count, size_t size) {
  void *p = calloc(count, size);
  if (!p) die("calloc");
  return p;
}

static int newest_first(const void *a, const void *b) {
  uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return (x < y) - (x > y);
}

/* The touch before which a quarter of the resident pages was touched last. */
static uint32_t quarter(const uint32_t *touched, const char *in, uint32_t *sorted) {
  uint32_t n = 0;
  for (uint32_t p = 0; p < ALL; p++)
    if (in[p]) sorted[n++] = touched[p];
  qsort(sorted, n, sizeof *sorted, newest_first);
  return sorted[n - n / 4];
}

/* Draws the order and plays the replacement over it. The last pages of the area are resident at first, as a scan leaves them. */
static void plan(void) {
  struct zipf z = zipf_order(ALL);
  uint64_t random = 0x9E3779B97F4A7C15ull;
  uint32_t *touched = some(ALL, 4), *sorted = some(ALL, 4);
  uint32_t old = 0, hand = 0, resident = RESIDENT, misses = 0;
  char *in = some(ALL, 1);
  order = some(WARM_UP + TOUCHES, sizeof *order);
  evictions = some((WARM_UP + TOUCHES) / 8, sizeof *evictions);
  for (uint32_t p = ALL - RESIDENT; p < ALL; p++) in[p] = 1, touched[p] = p;
  for (uint32_t i = 0; i < WARM_UP + TOUCHES; i++) {
    uint32_t p = order[i] = (uint32_t)zipf_page(&z, xorshift(&random));
    touched[p] = ALL + i;
    if (in[p]) continue;
    in[p] = 1, resident++;
    if (misses++ % 4096 == 0) old = quarter(touched, in, sorted);
    while (resident > RESIDENT) {
      struct eviction *e = &evictions[planned];
      uint32_t taken = 0;
      *e = (struct eviction){.after = i, .block = hand};
      for (uint32_t k = 0; k < WINDOW; k++) {
        uint32_t q = hand * WINDOW + k;
        if (!in[q]) continue;
        if (touched[q] < old) in[q] = 0, taken++, e->want[k / 64] |= 1ull << k % 64;
        else e->avoid[k / 64] |= 1ull << k % 64;
      }
      resident -= taken;
      planned += taken > 0;
      hand = (hand + 1) % (ALL / WINDOW);
    }
  }
  free(z.shuffled), free(touched), free(sorted), free(in);
}

static void *answer(void *cpu) {
  stay_on(*(int *)cpu);
  go_last();
  for (;;) {
    struct uffd_msg m;
    if (read(managed, &m, sizeof m) != sizeof m) {
      struct pollfd p = {managed, POLLIN, 0};
      poll(&p, 1, -1);
      continue;
    }
    struct uffdio_copy copy = {.dst = m.arg.pagefault.address & ~(PAGE - 1), .src = (uintptr_t)source, .len = PAGE};
    if (ioctl(managed, UFFDIO_COPY, &copy) && errno != EEXIST) die("UFFDIO_COPY");
    atomic_fetch_add_explicit(&answered, 1, memory_order_relaxed);
  }
  return cpu;
}

static int test(const uint64_t *set, unsigned k) { return set[k / 64] >> k % 64 & 1; }

static void move_out(uint32_t block, unsigned from, unsigned end) {
  while (from < end) {
    struct uffdio_move move = {.dst = (uintptr_t)window + from * PAGE, .src = (uintptr_t)at + ((uint64_t)block * WINDOW + from) * PAGE,
                               .len = (end - from) * PAGE, .mode = UFFDIO_MOVE_MODE_ALLOW_SRC_HOLES};
    int failed = ioctl(staging, UFFDIO_MOVE, &move);
    if (move.move > 0) from += (unsigned)(move.move / (int64_t)PAGE);
    else if (failed && errno != EAGAIN && errno != EBUSY) die("UFFDIO_MOVE");
  }
}

/* Moves victims out as the touches get to the misses that need it, each run between pages that stay with one call, and throws them away. */
static void *evict(void *cpu) {
  stay_on(*(int *)cpu);
  while (done < planned) {
    struct eviction *e = &evictions[done];
    uint32_t touches = atomic_load_explicit(&position, memory_order_acquire);
    if (touches <= e->after) {
      if (touches == WARM_UP + TOUCHES) break;
      usleep(50);
      continue;
    }
    done++;
    for (unsigned k = 0; k < WINDOW; k++) {
      if (!test(e->want, k)) continue;
      unsigned from = k, end = k + 1;
      for (; k < WINDOW && !test(e->avoid, k); k++)
        if (test(e->want, k)) end = k + 1;
      move_out(e->block, from, end);
    }
    madvise(window, WINDOW * PAGE, MADV_DONTNEED);
  }
  return cpu;
}

static void touch(uint32_t from, uint32_t to) {
  for (uint32_t i = from; i < to; i++) {
    (void)*(volatile char *)(at + order[i] * PAGE);
    if (i % 16 == 15) atomic_store_explicit(&position, i + 1, memory_order_release);
  }
  atomic_store_explicit(&position, to, memory_order_release);
}

void zipf_floor(void) {
  cpu_set_t before;
  int cpus[2] = {sched_getcpu(), 0}, count = 0;
  if (sched_getaffinity(0, sizeof before, &before)) die("sched_getaffinity");
  for (int c = 0; c < CPU_SETSIZE; c++)
    if (CPU_ISSET((size_t)c, &before) && c != cpus[0] && !count++) cpus[1] = c;
  if (!count) return; /* with one CPU it is no floor for anybody */
  plan();
  at = area(ALL);
  window = area(WINDOW);
  managed = manage(at, ALL, UFFD_FEATURE_MOVE);
  staging = manage(window, WINDOW, UFFD_FEATURE_MOVE);
  for (uint64_t p = ALL - RESIDENT; p < ALL; p++) {
    struct uffdio_copy copy = {.dst = (uintptr_t)at + p * PAGE, .src = (uintptr_t)source, .len = PAGE};
    if (ioctl(managed, UFFDIO_COPY, &copy)) die("UFFDIO_COPY");
  }
  stay_on(cpus[0]);
  pthread_t handler, evictor;
  if (pthread_create(&handler, 0, answer, &cpus[0]) || pthread_create(&evictor, 0, evict, &cpus[1])) die("pthread_create");
  touch(0, WARM_UP);
  unsigned answered_before = atomic_load(&answered);
  double begin = now();
  touch(WARM_UP, WARM_UP + TOUCHES);
  double end = now();
  unsigned misses = atomic_load(&answered) - answered_before;
  pthread_join(evictor, 0);
  say("a Zipf touch with every page at hand", (end - begin) / TOUCHES);
  printf("{\"name\":\"misses in 100 such touches\",\"value\":%.3f,\"unit\":\"%%\"}\n", 100.0 * misses / TOUCHES);
  if (planned - done > SLACK) { fprintf(stderr, "the evictor lags by %u blocks\n", planned - done); exit(2); }
  if (sched_setaffinity(0, sizeof before, &before)) die("sched_setaffinity");
  munmap(at, ALL * PAGE);
  free(order), free(evictions);
}
