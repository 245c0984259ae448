/* Plain: threads read, rewrite and poke random pages of one area, and now and then a run of them, upwards or downwards. Forking:
 * one more thread forks children again and again; each checks every page of its copy, changes some, checks again, and now and then
 * forks a grandchild, while the parent goes on.
 *
 * A page's lock is a byte in shared memory; `gate` is held shared for each operation and exclusively from before a fork until
 * the child has copied the shadow. */
#define _GNU_SOURCE
#include "checker.h"
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CHILDREN_AT_ONCE = 3, GRANDCHILD_ONE_IN = 4, WALK_ONE_IN = 64, WALK_MOST = 96 };

struct field {
  char *area;
  uint32_t *shadow; /* shared */
  _Atomic unsigned char *locks;
  uint64_t pages;
  double until;
  pthread_rwlock_t gate;
  atomic_ullong checked;
};

struct worker {
  pthread_t thread;
  struct field *field;
  uint64_t random;
};

static void visit(struct field *f, uint64_t page, uint64_t kind) {
  while (atomic_exchange_explicit(&f->locks[page], 1, memory_order_acquire)) sched_yield();
  char *at = f->area + page * PAGE;
  uint32_t version = f->shadow[page];
  if (kind % 10 < 6) {
    check_page(at, page, version, "random read");
  } else if (kind % 10 < 8 && POKES(version) < 15 && version) {
    f->shadow[page] = version + 1;
    poke_page(at, page, version + 1);
  } else {
    check_page(at, page, version, "before a rewrite");
    f->shadow[page] = VERSION(FULL(version) + 1, 0);
    write_page(at, page, f->shadow[page]);
  }
  atomic_store_explicit(&f->locks[page], 0, memory_order_release);
  atomic_fetch_add_explicit(&f->checked, 1, memory_order_relaxed);
}

/* One page, or a run of neighbours: read, or read and changed as single ones are. */
static void change_or_check(struct field *f, uint64_t *random) {
  uint64_t r = draw(random), page = r % f->pages;
  if (draw(random) % WALK_ONE_IN) return visit(f, page, r >> 40);
  uint64_t length = 2 + draw(random) % WALK_MOST;
  int down = draw(random) % 2, reads = draw(random) % 2;
  for (uint64_t i = 0; i < length && page < f->pages; i++) {
    visit(f, page, reads ? 0 : draw(random) >> 40);
    page += down ? -1 : 1; /* below 0 it is no page */
  }
}

static void check_all(struct field *f, const char *where) {
  for (uint64_t page = 0; page < f->pages; page++) check_page(f->area + page * PAGE, page, f->shadow[page], where);
  atomic_fetch_add_explicit(&f->checked, f->pages, memory_order_relaxed);
}

static void *work(void *argument) {
  struct worker *w = argument;
  while (now() < w->field->until) {
    pthread_rwlock_rdlock(&w->field->gate);
    for (int i = 0; i < 8; i++) change_or_check(w->field, &w->random);
    pthread_rwlock_unlock(&w->field->gate);
  }
  return 0;
}

static int code_of(pid_t child) {
  int status = 0;
  if (waitpid(child, &status, 0) < 0) fail("waitpid");
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

#pragma GCC diagnostic ignored "-Winfinite-recursion" /* depth ends it */

/* In the child: its own shadow first, then tell the parent, then check, change, check. Never returns. */
static void live_as_child(struct field *f, int tell, uint64_t random, int depth) {
  uint32_t *own = shared_memory(f->pages * sizeof *own);
  memcpy(own, f->shadow, f->pages * sizeof *own);
  _Atomic unsigned char *locks = shared_memory(f->pages);
  f->shadow = own;
  f->locks = locks;
  if (write(tell, "x", 1) != 1) fail("write to the parent");
  close(tell);
  if (draw(&random) % 2) check_all(f, "child, first look");
  uint64_t changes = draw(&random) % (2 * f->pages);
  for (uint64_t i = 0; i < changes && now() < f->until + 1; i++) change_or_check(f, &random);
  if (depth == 0 && draw(&random) % GRANDCHILD_ONE_IN == 0) {
    int pipes[2];
    if (pipe(pipes)) fail("pipe");
    pid_t grandchild = fork();
    if (grandchild < 0) fail("fork of a grandchild");
    if (grandchild == 0) live_as_child(f, pipes[1], draw(&random), 1);
    close(pipes[1]);
    char byte;
    if (read(pipes[0], &byte, 1) != 1) fail("grandchild said nothing");
    close(pipes[0]);
    for (uint64_t i = 0; i < f->pages / 4; i++) change_or_check(f, &random);
    int code = code_of(grandchild);
    if (code) _exit(code);
  }
  check_all(f, "child, last look");
  _exit(0);
}

static void *fork_again_and_again(void *argument) {
  struct worker *w = argument;
  struct field *f = w->field;
  pid_t children[CHILDREN_AT_ONCE] = {0};
  for (unsigned turn = 0; now() < f->until; turn++) {
    pid_t *child = &children[turn % CHILDREN_AT_ONCE];
    int code = *child ? code_of(*child) : 0;
    if (code) { fprintf(stderr, "vswap-checker: a child ended with %d\n", code); _exit(code); }
    int pipes[2];
    if (pipe(pipes)) fail("pipe");
    uint64_t random = draw(&w->random);
    pthread_rwlock_wrlock(&f->gate);
    *child = fork();
    if (*child < 0) fail("fork");
    if (*child == 0) live_as_child(f, pipes[1], random, 0);
    close(pipes[1]);
    char byte;
    if (read(pipes[0], &byte, 1) != 1) { fprintf(stderr, "vswap-checker: a child ended with %d before it looked\n", code_of(*child)); _exit(4); }
    close(pipes[0]);
    pthread_rwlock_unlock(&f->gate);
  }
  for (int i = 0; i < CHILDREN_AT_ONCE; i++) {
    int code = children[i] ? code_of(children[i]) : 0;
    if (code) { fprintf(stderr, "vswap-checker: a child ended with %d\n", code); _exit(code); }
  }
  return 0;
}

uint64_t run_pages(const struct options *o, int forking) {
  static struct field f;
  f.pages = o->bytes / PAGE;
  f.area = mmap(0, f.pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (f.area == MAP_FAILED) fail("mmap");
  f.shadow = shared_memory(f.pages * sizeof *f.shadow);
  f.locks = shared_memory(f.pages);
  f.until = now() + o->seconds;
  pthread_rwlockattr_t fair;
  pthread_rwlockattr_init(&fair);
  pthread_rwlockattr_setkind_np(&fair, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
  pthread_rwlock_init(&f.gate, &fair);
  uint64_t random = mix(o->seed);
  for (uint64_t page = 0; page < f.pages; page++) { /* one page in 16 stays untouched: reads as zeroes */
    if (draw(&random) % 16 == 0) continue;
    f.shadow[page] = VERSION(1, 0);
    write_page(f.area + page * PAGE, page, f.shadow[page]);
  }
  struct worker workers[65] = {0};
  for (unsigned i = 0; i < o->threads + (forking ? 1 : 0); i++) {
    workers[i].field = &f;
    workers[i].random = mix(o->seed + i + 1);
    if (pthread_create(&workers[i].thread, 0, i < o->threads ? work : fork_again_and_again, &workers[i])) fail("pthread_create");
  }
  for (unsigned i = 0; i < o->threads + (forking ? 1 : 0); i++) pthread_join(workers[i].thread, 0);
  check_all(&f, "last look");
  munmap(f.area, f.pages * PAGE);
  return f.checked;
}
