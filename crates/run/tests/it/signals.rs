//! Signals whose handlers do not restart the call that they interrupt.

use crate::programs::{compile, text, within_by};

/// Calls of each notified kind, each of which may fail with `EINTR` and then must have changed nothing, or has been made. `calls` makes
/// one of each; `mapped` tells how many pages the process has mapped.
const CALLS: &str = r#"
#include <sys/time.h>
static volatile int *interrupted, *over; static pid_t helper; static char *big;
static void h(int s) { }
static void catch(int s) { struct sigaction a = {.sa_handler = h}; sigaction(s, &a, 0); }
static void may_fail(int ok, int line) { if (ok) return; if (errno != EINTR) { dprintf(1, "line %d: %m\n", line); _exit(10); } ++*interrupted; }
static long mapped(void) {
  char text[64] = ""; int f = open("/proc/self/statm", O_RDONLY);
  while (read(f, text, sizeof text - 1) < 0 && errno == EINTR);
  close(f); return atol(text);
}
static void calls(int i) {
  size_t n = (1 + i % 3) * MIB;
  char *p = mmap(0, n, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); may_fail(p != MAP_FAILED, __LINE__);
  if (p != MAP_FAILED) {
    for (size_t k = 0; k < n; k += 4096) if (p[k]) { dprintf(1, "not empty\n"); _exit(11); }
    fill(p, n, i);
    char *q = mremap(p, n, 2 * n, MREMAP_MAYMOVE); may_fail(q != MAP_FAILED, __LINE__);
    if (q != MAP_FAILED) p = q;
    if (wrong(p, n, i)) { dprintf(1, "wrong\n"); _exit(12); }
    munmap(p, q == MAP_FAILED ? n : 2 * n);
  }
  long end = syscall(SYS_brk, 0), now = syscall(SYS_brk, end + 5 * 4096); may_fail(now != -1, __LINE__);
  long is = syscall(SYS_brk, 0);
  if (is != (now == -1 ? end : end + 5 * 4096) || now != -1 && now != is) { dprintf(1, "break %lx, answered %lx, was %lx\n", is, now, end); _exit(13); }
  while ((now = syscall(SYS_brk, end)) == -1) may_fail(0, __LINE__);
  if (i % 8 == 0) {
    long k = syscall(SYS_fork); if (!k) _exit(((unsigned long *)big)[i % 6000 * 512] != want(i % 6000 * 512, 1));
    may_fail(k > 0, __LINE__);
    if (k > 0) { int st = -1; while (waitpid(k, &st, 0) < 0 && errno == EINTR); if (st) { dprintf(1, "child %x\n", st); _exit(14); } }
    k = waitpid(-1, 0, WNOHANG);
    if (k > 0 && k != helper) { dprintf(1, "a child that nobody was told of\n"); _exit(15); }
    if (k == helper) helper = 0;
  }
}
"#;

/// Runs it plainly, without arguments, and within 24 MiB, with one.
fn check_signals(name: &str, body: &str) {
    let program = compile(name, &format!("{CALLS}\n{body}"), &[]);
    let plain = std::process::Command::new(&program).output().unwrap();
    assert!(plain.status.success(), "plainly: {}", text(&plain));
    let run = within_by(24, &[], &[&program, "managed"]).output().unwrap();
    assert!(run.status.success(), "under vswap: {}", text(&run));
}

/// What was mapped for a call whose answer a signal took would stay for ever, known to nobody.
#[test]
fn a_signal_without_restart_leaks_what_its_call_has_made() {
    check_signals(
        "eintr_often",
        "int main(){ int count; interrupted=&count; big=area(24*MIB); fill(big,24*MIB,1); press(); calls(0); catch(SIGALRM); long before=mapped();
          struct itimerval t={{0,150},{0,150}}, none={0}; setitimer(ITIMER_REAL,&t,0); for(int i=0;i<800;i++) calls(i); setitimer(ITIMER_REAL,&none,0);
          if(mapped()!=before) { printf(\"%ld pages, %ld before\\n\",mapped(),before); return 2; } return wrong(big,24*MIB,1)!=0; }",
    );
}

/// The one moment in which a call can be interrupted: it has been made and is not read yet. Here nobody reads, now and then.
#[test]
fn a_signal_before_its_call_is_read_has_the_call_half_made() {
    check_signals(
        "eintr_unread",
        "int main(int c,char**v){ int*shared=mmap(0,4096,3,MAP_SHARED|MAP_ANONYMOUS,-1,0); interrupted=shared; over=shared+1; pid_t me=getpid(); catch(SIGUSR1);
          char line[64]; snprintf(line,64,\"/proc/%d/stat\",getppid()); int engine=0; FILE*f=fopen(line,\"r\"); if(fscanf(f,\"%*d (%*[^)]) %*c %d\",&engine)!=1) return 3; fclose(f);
          helper=fork(); if(!helper){ prctl(1,SIGKILL); while(!over[1]) usleep(1000);
            for(int i=0;i<4000&&*interrupted<20&&c>1;i++){ kill(engine,SIGSTOP); for(int k=0;k<4;k++){ usleep(1000); kill(me,SIGUSR1); } kill(engine,SIGCONT); usleep(2000); } *over=1; _exit(0); }
          big=area(24*MIB); fill(big,24*MIB,1); press(); calls(0); long before=mapped(); over[1]=1; for(int i=0;!*over;i++) calls(i);
          if(helper&&status_of(helper)) return 4; if(c>1&&!*interrupted) return 5; if(mapped()!=before) { printf(\"%ld pages, %ld before\\n\",mapped(),before); return 2; } return wrong(big,24*MIB,1)!=0; }",
    );
}
