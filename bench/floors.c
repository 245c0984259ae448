/* vswap-floors: what the kernel's own calls cost, with nothing of ours around them. `cargo xtask peers` puts it beside what vswap
 * measures in the same run: no pager that answers page faults by userfaultfd, or calls by seccomp notification, can be faster.
 *
 *   floors                    first touch of a page, a fault and a notified call, each answered by a thread on the same CPU;
 *                             and the Zipf phase of `touch.c` with a pager that has every page at hand (floor_zipf.c)
 *   floors chain N PROGRAM    forks N times, each process waiting for the next, and executes PROGRAM in the last
 * Prints one line of JSON for each figure: {"name":"a fault answered by userfaultfd","value":7.7,"unit":"us"}
 * Exit code 0 (with `chain` the program's), 2 if something cannot be had.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "floors.h"

#ifndef SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP
#define SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP 1ul
#define SECCOMP_IOCTL_NOTIF_SET_FLAGS SECCOMP_IOW(4, __u64)
#endif
enum { PAGES = 50000, CALLS = 20000, STRIDE = 7919 };

static int faults, calls;
static char source[PAGE] __attribute__((aligned(4096)));

double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

void die(const char *what) {
  perror(what);
  exit(2);
}

void say(const char *name, double us) {
  printf("{\"name\":\"%s\",\"value\":%.3f,\"unit\":\"us\"}\n", name, us);
}

static void *answer_faults(void *unused) {
  go_last();
  for (;;) {
    struct uffd_msg m;
    if (read(faults, &m, sizeof m) != sizeof m) {
      struct pollfd p = {faults, POLLIN, 0};
      poll(&p, 1, -1);
      continue;
    }
    struct uffdio_copy copy = {.dst = m.arg.pagefault.address & ~(PAGE - 1), .src = (uintptr_t)source, .len = PAGE};
    if (ioctl(faults, UFFDIO_COPY, &copy)) die("UFFDIO_COPY");
  }
  return unused;
}

char *area(unsigned long pages) {
  char *at = mmap(0, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at == MAP_FAILED) die("mmap");
  madvise(at, pages * PAGE, MADV_NOHUGEPAGE);
  return at;
}

int manage(char *at, unsigned long pages, unsigned long long features) {
  int faults = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
  struct uffdio_api api = {.api = UFFD_API, .features = features};
  struct uffdio_register managed = {.range = {(uintptr_t)at, pages * PAGE}, .mode = UFFDIO_REGISTER_MODE_MISSING};
  if (faults < 0 || ioctl(faults, UFFDIO_API, &api) || ioctl(faults, UFFDIO_REGISTER, &managed)) die("userfaultfd");
  return faults;
}

void go_last(void) {
  struct sched_param none = {0};
  if (sched_setscheduler(0, SCHED_IDLE, &none)) die("SCHED_IDLE");
}

void stay_on(int cpu) {
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET((size_t)cpu, &one);
  if (sched_setaffinity(0, sizeof one, &one)) die("sched_setaffinity");
}

/* Reads every page once, far from the one before. */
static double read_all(const volatile char *at) {
  double begin = now();
  for (uint64_t i = 0; i < PAGES; i++) (void)at[i * STRIDE % PAGES * PAGE];
  return (now() - begin) / PAGES;
}

static void fault(void) {
  char *at = area(PAGES);
  faults = manage(at, PAGES, 0);
  pthread_t handler;
  if (pthread_create(&handler, 0, answer_faults, 0)) die("pthread_create");
  say("a fault answered by userfaultfd, one page copied", read_all(at));
}

static void first_touch(void) {
  char *at = area(PAGES);
  double begin = now();
  for (uint64_t i = 0; i < PAGES; i++) at[i * STRIDE % PAGES * PAGE] = 1;
  say("a first touch, answered by the kernel", (now() - begin) / PAGES);
}

static void *let_calls_go_on(void *unused) {
  for (;;) {
    struct seccomp_notif call = {0};
    struct seccomp_notif_resp answer = {0};
    if (ioctl(calls, SECCOMP_IOCTL_NOTIF_RECV, &call)) return unused;
    answer.id = call.id;
    answer.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
    if (ioctl(calls, SECCOMP_IOCTL_NOTIF_SEND, &answer)) return unused;
  }
}

static void *make_calls(void *ready) {
  struct sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  struct sock_fprog program = {sizeof code / sizeof *code, code};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) die("no_new_privs");
  calls = (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
  if (calls < 0) die("seccomp");
  ioctl(calls, SECCOMP_IOCTL_NOTIF_SET_FLAGS, SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP);
  pthread_barrier_wait(ready);
  double begin = now();
  for (int i = 0; i < CALLS; i++) syscall(SYS_getppid);
  say("a call answered by notification", (now() - begin) / CALLS);
  return 0;
}

static void notify(void) {
  pthread_barrier_t ready;
  pthread_t caller, listener;
  pthread_barrier_init(&ready, 0, 2);
  if (pthread_create(&caller, 0, make_calls, &ready)) die("pthread_create");
  pthread_barrier_wait(&ready);
  if (pthread_create(&listener, 0, let_calls_go_on, 0)) die("pthread_create");
  pthread_join(caller, 0);
}

static int chain(int forks, char **program) {
  for (int i = 0; i < forks; i++) {
    pid_t child = fork();
    if (child < 0) die("fork");
    int status = 0;
    if (child) return waitpid(child, &status, 0) == child && WIFEXITED(status) ? WEXITSTATUS(status) : 2;
  }
  execv(program[0], program);
  die(program[0]);
  return 2;
}

int main(int argc, char **argv) {
  if (argc > 3 && !strcmp(argv[1], "chain")) return chain(atoi(argv[2]), argv + 3);
  if (argc > 1) {
    fprintf(stderr, "use: floors [chain N PROGRAM]\n");
    return 2;
  }
  zipf_floor();
  stay_on(sched_getcpu());
  first_touch();
  fault();
  notify();
  return 0;
}
