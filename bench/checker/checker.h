/* vswap-checker: pages whose every byte is known, so that one wrong byte is seen.
 *
 * A page's content is a function of (page, version) alone: content.c. The shadow (which version a page has now) lies in *shared*
 * memory, which vswap does not manage, so a fault of the pager cannot hide itself. Modes: pages.c (plain, fork), mixed.c.
 */
#ifndef CHECKER_H
#define CHECKER_H
#include <stddef.h>
#include <stdint.h>

#define PAGE 4096ul
#define WORDS (PAGE / 8)

/* A version: 0 is the page that nobody wrote (zeroes); else full << 4 | pokes, pokes being single words changed after. */
#define VERSION(full, pokes) ((uint32_t)(full) << 4 | (uint32_t)(pokes))
#define FULL(version) ((version) >> 4)
#define POKES(version) ((version)&15)

struct options {
  const char *mode;
  uint64_t seed, bytes;
  unsigned threads;
  double seconds;
};

extern uint64_t run_seed;

uint64_t mix(uint64_t x);
uint64_t draw(uint64_t *state);
double now(void);
void *shared_memory(size_t bytes);

/* Puts the content of the version there. */
void write_page(void *at, uint64_t page, uint32_t version);
/* Changes the one word by which `version` differs from the version before it. */
void poke_page(void *at, uint64_t page, uint32_t version);
/* Ends the process (code 3, a message that begins with WRONG) unless every byte is as it should be. */
void check_page(const void *at, uint64_t page, uint32_t version, const char *where);
int page_matches(const void *at, uint64_t page, uint32_t version);

uint64_t run_pages(const struct options *, int forking); /* both return how many pages were checked */
uint64_t run_mixed(const struct options *);

/* Says what a system call failed with and ends with code 2. */
void fail(const char *what);
#endif
