/* A parent with many children, each of which reads some of the parent's pages and writes to a few. All then wait until SIGUSR1 comes (with a
 * fifth argument: they do not wait), and the parent reads its pages again. use: family MIB CHILDREN READS WRITES [go] */
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { WORDS = 512, NOISE = 128 };

static uint64_t mix(uint64_t x) {
  x = (x ^ x >> 33) * 0xff51afd7ed558ccdull;
  x = (x ^ x >> 33) * 0xc4ceb9fe1a85ec53ull;
  return x ^ x >> 33;
}

/* A quarter of a page does not compress. */
static uint64_t word(uint64_t page, int at) { return at < NOISE ? mix(page * WORDS + at) : page; }

static int wrong(const uint64_t *page, uint64_t number) {
  return page[5] != word(number, 5) || page[NOISE - 1] != word(number, NOISE - 1) || page[300] != word(number, 300);
}

int main(int argc, char **argv) {
  if (argc < 5) return 64;
  uint64_t pages = strtoull(argv[1], 0, 10) << 8, bad = 0;
  int children = atoi(argv[2]), reads = atoi(argv[3]), writes = atoi(argv[4]), up[2], go[2], sig;
  uint64_t *memory = mmap(0, pages * WORDS * 8, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED || pipe(up) || pipe(go)) return 65;
  sigset_t awaited;
  sigemptyset(&awaited);
  sigaddset(&awaited, SIGUSR1);
  sigprocmask(SIG_BLOCK, &awaited, 0);
  for (uint64_t page = 0; page < pages; page++)
    for (int at = 0; at < WORDS; at++) memory[page * WORDS + at] = word(page, at);
  puts("filled");
  fflush(stdout);
  for (int child = 0; child < children; child++) {
    pid_t pid = fork();
    if (pid < 0) return perror("fork"), 66;
    if (pid) continue;
    uint64_t state = child + 1;
    char c;
    close(go[1]);
    for (int i = 0; i < reads; i++) {
      uint64_t page = (state = mix(state + i)) % pages;
      bad += wrong(memory + page * WORDS, page);
    }
    for (int i = 0; i < writes; i++) memory[(state = mix(state + i)) % pages * WORDS + 400] = child;
    c = bad ? 'b' : 'g';
    if (write(up[1], &c, 1) != 1) _exit(67);
    _exit(read(go[0], &c, 1) || bad);
  }
  close(up[1]);
  for (int child = 0; child < children; child++) {
    char c;
    if (read(up[0], &c, 1) != 1) return 68;
    bad += c != 'g';
  }
  puts("ready");
  fflush(stdout);
  if (argc < 6) sigwait(&awaited, &sig);
  close(go[1]);
  for (int status; wait(&status) > 0;) bad += status != 0;
  for (uint64_t page = 0; page < pages; page++) bad += wrong(memory + page * WORDS, page) || memory[page * WORDS + 400] != page;
  printf("%llu wrong\n", (unsigned long long)bad);
  return bad != 0;
}
