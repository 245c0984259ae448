/* What the parts of `floors` have in common. */
#ifndef VSWAP_BENCH_FLOORS_H
#define VSWAP_BENCH_FLOORS_H
#define PAGE 4096ul

double now(void); /* microseconds */
void die(const char *what);
void say(const char *name, double us);
/* A private anonymous area without huge pages. */
char *area(unsigned long pages);
/* A userfaultfd that manages `area`, for missing pages. */
int manage(char *area, unsigned long pages, unsigned long long features);
/* From now on the calling thread runs when nobody else wants its CPU: whom it wakes takes it at once. */
void go_last(void);
void stay_on(int cpu);

/* floor_zipf.c */
void zipf_floor(void);
#endif
