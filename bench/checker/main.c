/* use: checker [--mode plain|fork|mixed|all] [--seconds S] [--bytes N] [--threads N] [--seed N]
 * Exit code 0: every byte was right. 2: a call failed. 3: WRONG byte. 4: a child vanished. */
#include "checker.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv) {
  struct options o = {.mode = "all", .seed = 1, .bytes = 128ul << 20, .threads = 2, .seconds = 10};
  for (int i = 1; i < argc; i += 2) {
    const char *value = i + 1 < argc ? argv[i + 1] : "";
    if (!strcmp(argv[i], "--mode")) o.mode = value;
    else if (!strcmp(argv[i], "--seconds")) o.seconds = atof(value);
    else if (!strcmp(argv[i], "--bytes")) o.bytes = strtoull(value, 0, 10);
    else if (!strcmp(argv[i], "--threads")) o.threads = (unsigned)atoi(value);
    else if (!strcmp(argv[i], "--seed")) o.seed = strtoull(value, 0, 10);
    else { fprintf(stderr, "vswap-checker: unknown option %s\n", argv[i]); return 2; }
  }
  if (o.threads < 1 || o.threads > 64 || o.bytes < PAGE) { fprintf(stderr, "vswap-checker: nonsense sizes\n"); return 2; }
  run_seed = o.seed;
  int all = !strcmp(o.mode, "all"), ran = 0;
  if (all) o.seconds /= 3;
  const struct { const char *name; int number; } modes[] = {{"plain", 0}, {"fork", 1}, {"mixed", 2}};
  for (int i = 0; i < 3; i++) {
    if (!all && strcmp(o.mode, modes[i].name)) continue;
    uint64_t checked = modes[i].number == 2 ? run_mixed(&o) : run_pages(&o, modes[i].number);
    fprintf(stderr, "vswap-checker: %s: %llu pages checked, all right\n", modes[i].name, (unsigned long long)checked);
    ran++;
  }
  if (!ran) { fprintf(stderr, "vswap-checker: no mode %s\n", o.mode); return 2; }
  puts("all right");
  return 0;
}
