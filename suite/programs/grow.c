/* Grows past what vswap leaves unmanaged and ends: what starting a managed program costs. use: grow MIB */
#include <stdlib.h>
#include <sys/mman.h>

int main(int argc, char **argv) {
  size_t bytes = (argc > 1 ? strtoull(argv[1], 0, 10) : 20) << 20;
  volatile char *at = mmap(0, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) return 1;
  at[0] = at[bytes - 1] = 1;
  return at[0] + at[bytes - 1] - 2;
}
