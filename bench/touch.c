/* vswap-touch: the work that `cargo xtask peers` measures.
 *
 * Fills a private anonymous area with pages of a real heap (a file), writes each page's number into its first word, and then
 * touches the pages in several orders. Every operation verifies the page's number. Each phase runs for a given time after a
 * warm-up of a third of it (`pause` waits for SIGUSR1 instead), and prints one line of JSON:
 *   {"name":"random_read","threads":1,"value":7.1,"unit":"us/op","ops":400000,"bad":0}
 * Exit code 0, 1 when a page was wrong, 2 for bad arguments.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "zipf.h"

#define PAGE 4096ul
enum { CHECK_CLOCK_EVERY = 16, MAX_THREADS = 64 };

static char *area;
static const char *heap;
static uint64_t pages, heap_pages;
static struct zipf zipf;
static double phase_seconds = 2.0;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

struct worker {
  pthread_t thread;
  pthread_barrier_t *barrier;
  uint64_t (*next)(struct worker *); /* the next page */
  uint64_t random, cursor, first, end;
  unsigned write_percent;
  uint64_t ops, bad;
  double begin, finish;
};

static uint64_t draw(struct worker *w) { return xorshift(&w->random); }

static uint64_t next_uniform(struct worker *w) { return draw(w) % pages; }

static uint64_t next_in_sequence(struct worker *w) {
  if (w->cursor == w->end) w->cursor = w->first;
  return w->cursor++;
}

static uint64_t next_zipf(struct worker *w) { return zipf_page(&zipf, draw(w)); }

static void run_for(struct worker *w, double seconds, int at_least_one_pass) {
  w->ops = 0;
  w->begin = now();
  double until = w->begin + seconds;
  for (;;) {
    uint64_t page = w->next(w);
    volatile uint64_t *word = (volatile uint64_t *)(area + page * PAGE);
    if (word[0] != page) {
      w->bad++;
      fprintf(stderr, "vswap-touch: page %llu holds %llx\n", (unsigned long long)page, (unsigned long long)word[0]);
    }
    if (w->write_percent && draw(w) % 100 < w->write_percent) word[1]++;
    w->ops++;
    if (w->ops % CHECK_CLOCK_EVERY == 0 && now() >= until && (!at_least_one_pass || w->ops >= w->end - w->first)) break;
  }
  w->finish = now();
}

static void *fill_worker(void *argument) {
  struct worker *w = argument;
  pthread_barrier_wait(w->barrier);
  w->begin = now();
  for (uint64_t i = w->first; i < w->end; i++) {
    char *page = area + i * PAGE;
    memcpy(page, heap + (i % heap_pages) * PAGE, PAGE);
    *(uint64_t *)page = i;
  }
  w->ops = w->end - w->first;
  w->finish = now();
  return 0;
}

static void *touch_worker(void *argument) {
  struct worker *w = argument;
  int pass = w->next == next_in_sequence;
  pthread_barrier_wait(w->barrier);
  run_for(w, phase_seconds / 3, 0);
  pthread_barrier_wait(w->barrier);
  run_for(w, phase_seconds, pass);
  return 0;
}

static uint64_t pause_until_told(void) {
  sigset_t told;
  int which;
  sigemptyset(&told);
  sigaddset(&told, SIGUSR1);
  sigwait(&told, &which);
  return 0;
}

static uint64_t phase(const char *name, unsigned threads) {
  if (!strcmp(name, "pause")) return pause_until_told();
  static const struct { const char *name; uint64_t (*next)(struct worker *); unsigned write_percent; } kinds[] = {
      {"fill", 0, 0}, {"random_read", next_uniform, 0}, {"random_write30", next_uniform, 30},
      {"scan", next_in_sequence, 0}, {"zipf", next_zipf, 0}};
  unsigned kind = 0;
  while (kind < sizeof kinds / sizeof *kinds && strcmp(kinds[kind].name, name)) kind++;
  if (kind == sizeof kinds / sizeof *kinds) { fprintf(stderr, "vswap-touch: no phase %s\n", name); exit(2); }

  struct worker workers[MAX_THREADS] = {0};
  pthread_barrier_t barrier;
  pthread_barrier_init(&barrier, 0, threads);
  for (unsigned i = 0; i < threads; i++) {
    struct worker *w = &workers[i];
    w->barrier = &barrier;
    w->next = kinds[kind].next;
    w->write_percent = kinds[kind].write_percent;
    w->random = 0x9E3779B97F4A7C15ull * (i + 1 + 64 * kind + 1024 * threads);
    w->first = w->cursor = pages * i / threads;
    w->end = pages * (i + 1) / threads;
    if (pthread_create(&w->thread, 0, w->next ? touch_worker : fill_worker, w)) { perror("pthread_create"); exit(2); }
  }
  uint64_t ops = 0, bad = 0;
  double begin = 0, finish = 0;
  for (unsigned i = 0; i < threads; i++) {
    pthread_join(workers[i].thread, 0);
    ops += workers[i].ops;
    bad += workers[i].bad;
    if (!i || workers[i].begin < begin) begin = workers[i].begin;
    if (!i || workers[i].finish > finish) finish = workers[i].finish;
  }
  pthread_barrier_destroy(&barrier);
  printf("{\"name\":\"%s\",\"threads\":%u,\"value\":%.4f,\"unit\":\"us/op\",\"ops\":%llu,\"bad\":%llu}\n", name, threads,
         (finish - begin) * 1e6 / (double)ops, (unsigned long long)ops, (unsigned long long)bad);
  fflush(stdout);
  return bad;
}

static void map_heap(const char *path) {
  struct stat st;
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0 || fstat(fd, &st) || (heap_pages = (uint64_t)st.st_size / PAGE) == 0) { perror(path); exit(2); }
  heap = mmap(0, heap_pages * PAGE, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
  if (heap == MAP_FAILED) { perror("mmap of the heap file"); exit(2); }
  close(fd);
}

int main(int argc, char **argv) {
  const char *file = 0, *phases = "fill,random_read,random_write30,scan,zipf";
  uint64_t bytes = 1ul << 30;
  unsigned max_threads = 2, bad = 0;
  for (int i = 1; i + 1 < argc; i += 2) {
    if (!strcmp(argv[i], "--heap")) file = argv[i + 1];
    else if (!strcmp(argv[i], "--bytes")) bytes = strtoull(argv[i + 1], 0, 10);
    else if (!strcmp(argv[i], "--seconds")) phase_seconds = atof(argv[i + 1]);
    else if (!strcmp(argv[i], "--threads")) max_threads = (unsigned)atoi(argv[i + 1]);
    else if (!strcmp(argv[i], "--phases")) phases = argv[i + 1];
    else { fprintf(stderr, "vswap-touch: unknown option %s\n", argv[i]); return 2; }
  }
  pages = bytes / PAGE;
  if (!file || !pages || !max_threads || max_threads > MAX_THREADS) {
    fprintf(stderr, "use: touch --heap FILE [--bytes N] [--seconds S] [--threads N] [--phases a,b]\n");
    return 2;
  }
  sigset_t told;
  sigemptyset(&told);
  sigaddset(&told, SIGUSR1);
  sigprocmask(SIG_BLOCK, &told, 0);
  map_heap(file);
  zipf = zipf_order(pages);
  for (unsigned threads = 1; threads <= max_threads; threads++) {
    area = mmap(0, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (area == MAP_FAILED) { perror("mmap"); return 2; }
    char *list = strdup(phases), *save = 0;
    for (char *name = strtok_r(list, ",", &save); name; name = strtok_r(0, ",", &save)) bad += phase(name, threads) != 0;
    free(list);
    munmap(area, pages * PAGE);
  }
  return bad != 0;
}
