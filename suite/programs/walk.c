/* A static C program: a hash table of linked records, built, walked at random, partly freed and walked again. Exit code 7 on
 * purpose: it must come through. use: walk MIB */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct record {
  struct record *next;
  uint64_t key, length;
  char text[];
};

static uint64_t state = 88172645463325252ull;
static uint64_t draw(void) {
  state ^= state << 13;
  state ^= state >> 7;
  return state ^= state << 17;
}

int main(int argc, char **argv) {
  uint64_t bytes = (argc > 1 ? strtoull(argv[1], 0, 10) : 64) << 20, used = 0, count = 0, buckets = bytes / 512, sum = 0;
  struct record **table = calloc(buckets, sizeof *table);
  while (used < bytes) {
    uint64_t length = 16 + draw() % 300;
    struct record *r = malloc(sizeof *r + length);
    r->key = count++;
    r->length = length;
    for (uint64_t i = 0; i < length; i++) r->text[i] = "the quick brown fox "[(r->key * 7 + i) % 20];
    r->next = table[r->key % buckets];
    table[r->key % buckets] = r;
    used += sizeof *r + length + 16;
  }
  for (int round = 0; round < 2; round++) {
    for (uint64_t i = 0; i < count / 8; i++) {
      uint64_t key = draw() % count;
      for (struct record *r = table[key % buckets]; r; r = r->next)
        if (r->key == key)
          for (uint64_t k = 0; k < r->length; k++) sum = sum * 31 + (unsigned char)r->text[k];
    }
    for (uint64_t b = round; b < buckets; b += 3) { /* drop some */
      struct record *r = table[b];
      if (r) table[b] = r->next, free(r);
    }
    printf("round %d: %llu records, sum %llx\n", round, (unsigned long long)count, (unsigned long long)sum);
  }
  for (uint64_t b = 0; b < buckets; b++)
    for (struct record *r = table[b]; r; r = r->next) sum = sum * 31 + r->key + r->length;
  printf("all: %llx\n", (unsigned long long)sum);
  return 7;
}
