/* Mixed: each thread owns an arena and a heap and does to them what programs do: map, unmap, discard, move, protect, realloc, brk by
 * small mallocs, system calls that read from and write into pages. All of it against a shadow of what each page must hold. */
#define _GNU_SOURCE
#include "checker.h"
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define ARENAS_BEGIN 0x200000000000ul
#define ARENA_DISTANCE 0x4000000000ul

enum { BLOCKS = 48, LONGEST_RUN = 600 };
enum state { UNMAPPED, MAPPED, READ_ONLY, NO_ACCESS, MAYBE_FREED };

struct shadow_page {
  uint64_t name; /* whose content it has: pages move */
  uint32_t version;
  uint32_t state;
};

struct block {
  unsigned char *at;
  size_t size;
  uint64_t name;
};

struct arena {
  pthread_t thread;
  char *base;
  uint64_t pages, names, random, checked;
  double until;
  struct shadow_page *shadow;
  struct block blocks[BLOCKS];
  int pipes[2];
};

static char *at_page(struct arena *a, uint64_t page) { return a->base + page * PAGE; }

static void check_one(struct arena *a, uint64_t page, const char *where) {
  struct shadow_page *s = &a->shadow[page];
  if (s->state == UNMAPPED || s->state == NO_ACCESS) return;
  if (s->state == MAYBE_FREED) { /* after MADV_FREE: the old content or zeroes, nothing else */
    if (page_matches(at_page(a, page), s->name, 0)) s->version = 0;
    else check_page(at_page(a, page), s->name, s->version, "after MADV_FREE");
    return;
  }
  check_page(at_page(a, page), s->name, s->version, where);
  a->checked++;
}

/* Random accesses inside a run of pages. */
static void use_run(struct arena *a, uint64_t first, uint64_t count, unsigned times) {
  while (times--) {
    uint64_t r = draw(&a->random), page = first + r % count;
    struct shadow_page *s = &a->shadow[page];
    if ((r >> 40) % 2 || (s->state != MAPPED && s->state != MAYBE_FREED)) {
      check_one(a, page, "mixed read");
    } else if ((r >> 44) % 3 == 0 && s->state == MAPPED && s->version && POKES(s->version) < 15) {
      poke_page(at_page(a, page), s->name, ++s->version);
    } else {
      s->name = ++a->names;
      s->version = VERSION(FULL(s->version) + 1, 0);
      s->state = MAPPED;
      write_page(at_page(a, page), s->name, s->version);
    }
  }
}

static void set_run(struct arena *a, uint64_t first, uint64_t count, enum state state) {
  for (uint64_t i = first; i < first + count; i++) a->shadow[i] = (struct shadow_page){.state = state};
}

static int run_is(struct arena *a, uint64_t first, uint64_t count, enum state state) {
  for (uint64_t i = first; i < first + count; i++)
    if (a->shadow[i].state != (uint32_t)state) return 0;
  return 1;
}

static void discard_run(struct arena *a, uint64_t first, uint64_t count, int advice) {
  for (uint64_t i = first; i < first + count; i++)
    if (a->shadow[i].state == UNMAPPED || (advice == MADV_FREE && a->shadow[i].state != MAPPED)) return; /* would fail half-way or tell nothing */
  if (madvise(at_page(a, first), count * PAGE, advice) && errno != EINVAL) fail("madvise");
  for (uint64_t i = first; i < first + count; i++) {
    if (advice == MADV_DONTNEED) a->shadow[i].version = 0, a->shadow[i].state = a->shadow[i].state == MAYBE_FREED ? MAPPED : a->shadow[i].state;
    if (advice == MADV_FREE && a->shadow[i].state == MAPPED) a->shadow[i].state = MAYBE_FREED;
  }
}

static void protect_run(struct arena *a, uint64_t first, uint64_t count) {
  static const struct { int rights; enum state state; } to[] = {
      {PROT_READ | PROT_WRITE, MAPPED}, {PROT_READ, READ_ONLY}, {PROT_NONE, NO_ACCESS}, {PROT_READ | PROT_WRITE, MAPPED}};
  for (uint64_t i = first; i < first + count; i++)
    if (a->shadow[i].state == UNMAPPED || a->shadow[i].state == MAYBE_FREED) return;
  unsigned which = draw(&a->random) % 4;
  if (mprotect(at_page(a, first), count * PAGE, to[which].rights)) fail("mprotect");
  for (uint64_t i = first; i < first + count; i++) a->shadow[i].state = to[which].state;
}

static void move_run(struct arena *a, uint64_t first, uint64_t count) {
  uint64_t to = draw(&a->random) % (a->pages - count);
  if ((to < first + count && first < to + count) || !run_is(a, first, count, MAPPED)) return;
  /* Over several mappings mremap gives EFAULT on this kernel: then nothing has moved. */
  if (mremap(at_page(a, first), count * PAGE, count * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, at_page(a, to)) == MAP_FAILED) {
    if (errno != EFAULT && errno != EINVAL) fail("mremap");
    set_run(a, to, count, UNMAPPED); /* the destination may be gone already */
    munmap(at_page(a, to), count * PAGE);
    return;
  }
  memcpy(&a->shadow[to], &a->shadow[first], count * sizeof *a->shadow);
  set_run(a, first, count, UNMAPPED);
}

/* A page's bytes go through the kernel: write(2) from it, read(2) into another. */
static void through_a_pipe(struct arena *a, uint64_t from, uint64_t to) {
  struct shadow_page *s = &a->shadow[from], *d = &a->shadow[to];
  if ((s->state != MAPPED && s->state != READ_ONLY) || d->state != MAPPED || from == to) return;
  if (write(a->pipes[1], at_page(a, from), PAGE) != (ssize_t)PAGE) fail("write(2) from a page");
  if (read(a->pipes[0], at_page(a, to), PAGE) != (ssize_t)PAGE) fail("read(2) into a page");
  d->name = s->name;
  d->version = s->version;
  check_one(a, to, "after read(2)");
}

static unsigned char byte_of(uint64_t name, size_t at) { return (unsigned char)(mix(name + at / 64) >> at % 57); }

static void check_block(struct arena *a, struct block *b, size_t size) {
  for (size_t i = 0; i < size; i += i < 4096 ? 1 : 61)
    if (b->at[i] != byte_of(b->name, i)) {
      fprintf(stderr, "vswap-checker: WRONG: malloc'ed block, seed %llu: byte %zu of %zu at %p holds %x, expected %x\n", (unsigned long long)run_seed,
              i, b->size, (void *)b->at, b->at[i], byte_of(b->name, i));
      _exit(3);
    }
  a->checked++;
}

static void use_heap(struct arena *a) {
  struct block *b = &a->blocks[draw(&a->random) % BLOCKS];
  uint64_t r = draw(&a->random);
  size_t size = r % 3 == 0 ? 16 + (r >> 8) % 2000 : r % 3 == 1 ? 4096 + (r >> 8) % 200000 : 100000 + (r >> 8) % 1500000;
  if (b->at) check_block(a, b, b->size);
  if (b->at && r >> 60 < 4) {
    free(b->at);
    b->at = 0;
    return;
  }
  unsigned char *moved = b->at && r >> 60 < 12 ? realloc(b->at, size) : malloc(size);
  if (!moved) fail("malloc");
  if (b->at && r >> 60 < 12) {
    b->at = moved;
    check_block(a, b, size < b->size ? size : b->size);
  } else {
    free(b->at);
    b->at = moved;
  }
  b->size = size;
  b->name = r;
  for (size_t i = 0; i < size; i++) b->at[i] = byte_of(r, i);
}

static void one_act(struct arena *a) {
  static const int hints[] = {MADV_HUGEPAGE, MADV_NOHUGEPAGE, MADV_WILLNEED, MADV_COLD, MADV_PAGEOUT};
  uint64_t r = draw(&a->random), longest = r >> 58 ? 40 : LONGEST_RUN;
  uint64_t count = 1 + (r >> 8) % longest, first = (r >> 24) % (a->pages - count);
  switch (r % 16) {
  case 0:
  case 1:
    if (mmap(at_page(a, first), count * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED) fail("mmap");
    set_run(a, first, count, MAPPED);
    break;
  case 2:
    if (munmap(at_page(a, first), count * PAGE)) fail("munmap");
    set_run(a, first, count, UNMAPPED);
    break;
  case 3: discard_run(a, first, count, MADV_DONTNEED); break;
  case 4: discard_run(a, first, count, MADV_FREE); break;
  case 5: protect_run(a, first, count); break;
  case 6: move_run(a, first, count); break;
  case 7: through_a_pipe(a, first, (r >> 50) % a->pages); break;
  case 8: discard_run(a, first, count, hints[(r >> 50) % 5]); break;
  case 9:
  case 10: use_heap(a); return;
  default: break;
  }
  use_run(a, first, count, 1 + (unsigned)(r >> 52) % 64);
}

static void *live(void *argument) {
  struct arena *a = argument;
  while (now() < a->until) one_act(a);
  for (uint64_t page = 0; page < a->pages; page++) check_one(a, page, "mixed, last look");
  for (int i = 0; i < BLOCKS; i++)
    if (a->blocks[i].at) check_block(a, &a->blocks[i], a->blocks[i].size), free(a->blocks[i].at);
  return 0;
}

uint64_t run_mixed(const struct options *o) {
  struct arena *arenas = calloc(o->threads, sizeof *arenas);
  uint64_t checked = 0;
  for (unsigned i = 0; i < o->threads; i++) {
    struct arena *a = &arenas[i];
    a->pages = o->bytes / PAGE / o->threads;
    if (a->pages < 2 * LONGEST_RUN) { fprintf(stderr, "vswap-checker: mixed wants at least 8 MiB a thread\n"); _exit(2); }
    /* Far below where the kernel looks first: malloc's own mappings must not land in the holes that we make. */
    void *at = (void *)(ARENAS_BEGIN + i * ARENA_DISTANCE);
    a->base = mmap(at, a->pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    if (a->base == MAP_FAILED || pipe(a->pipes)) fail("arena");
    a->shadow = shared_memory(a->pages * sizeof *a->shadow);
    set_run(a, 0, a->pages, MAPPED);
    a->random = mix(o->seed * 1000 + i);
    a->names = (uint64_t)i << 40;
    a->until = now() + o->seconds;
    if (pthread_create(&a->thread, 0, live, a)) fail("pthread_create");
  }
  for (unsigned i = 0; i < o->threads; i++) {
    pthread_join(arenas[i].thread, 0);
    checked += arenas[i].checked;
    munmap(arenas[i].base, arenas[i].pages * PAGE);
  }
  free(arenas);
  return checked;
}
