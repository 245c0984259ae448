//! Forks that do not go as they should.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use vswap_sys::{process, signal};

use crate::programs::{compile, text, within};

/// While a process forks its memory stands still, for a second. Here that is over before the kernel has done: a word that it writes in
/// the parent is protected by the program itself, in shared memory, by a thread that first writes all that is to stand still. A child
/// made from what is known then would lack pages: it is ended instead, before its first instruction, and its parent goes on.
#[test]
fn a_child_of_a_fork_that_outlasts_the_freeze_lives_on_with_wrong_memory() {
    let body = "#include <linux/userfaultfd.h>\n#include <sys/ioctl.h>\n
         static int u, *word; static char*p; static size_t n=48*MIB;
         static void*lift(void*x){ struct uffd_msg m; while(read(u,&m,sizeof m)!=sizeof m); fill(p,n,2); struct uffdio_writeprotect w={{(long)word,4096},0}; if(ioctl(u,UFFDIO_WRITEPROTECT,&w)) _exit(90); return 0; }
         int main(int c,char**v){ struct uffdio_api api={UFFD_API,UFFD_FEATURE_PAGEFAULT_FLAG_WP|UFFD_FEATURE_WP_HUGETLBFS_SHMEM}; u=syscall(SYS_userfaultfd,O_CLOEXEC); if(u<0||ioctl(u,UFFDIO_API,&api)) { puts(\"none\"); return 0; }
          word=mmap(0,4096,3,MAP_SHARED|MAP_ANONYMOUS,-1,0); *word=1; p=area(n); fill(p,n,1); press();
          struct uffdio_register r={{(long)word,4096},UFFDIO_REGISTER_MODE_WP}; struct uffdio_writeprotect w={{(long)word,4096},UFFDIO_WRITEPROTECT_MODE_WP}; if(ioctl(u,UFFDIO_REGISTER,&r)||ioctl(u,UFFDIO_WRITEPROTECT,&w)) return 91;
          pthread_t h; pthread_create(&h,0,lift,0); long k=syscall(SYS_clone,CLONE_PARENT_SETTID|SIGCHLD,0,word,0,0); if(!k) _exit(wrong(p,n,1)!=0); if(k<0) return 2; int st=status_of(k); pthread_join(h,0);
          if(c>1?st!=9:st!=0) return 3; if(*word!=k) return 4; if(wrong(p,n,2)) return 5;
          k=fork(); if(!k){ int bad=wrong(p,n,2); fill(p,n,3); press(); _exit(bad||wrong(p,n,3)); } if(k<0||status_of(k)) return 6; press(); return wrong(p,n,2)?7:0; }";
    let program = compile("frozen_out", body, &[]);
    let plain = Command::new(&program).output().unwrap();
    assert!(plain.status.success(), "plainly: {}", text(&plain));
    if plain.stdout == b"none\n" {
        return eprintln!("no userfaultfd for this user's programs: nothing to test");
    }
    let run = within(24, &[&program, "managed"]).output().unwrap();
    assert!(run.status.success(), "{}", text(&run));
    let said = String::from_utf8_lossy(&run.stderr);
    assert_eq!(said.matches("; the forked process was ended").count(), 1, "{said}");
}

/// Where dozens of threads wanted the CPU, a child's stub took more than a second to start. Its parent's memory stood still no longer, and
/// the child was killed. Here the engine gets no CPU for more than that, whenever a child's stub has just been started.
#[test]
fn a_fork_that_is_followed_slowly_costs_the_child_its_life() {
    const LONGER_THAN_A_FREEZE: Duration = Duration::from_millis(1300);
    let body = "int main(){ char*p=area(48*MIB); fill(p,48*MIB,1); press(); printf(\"%d\\n\",getpid()); fflush(stdout);
          for(int i=0;i<12;i++){ pid_t k=fork(); if(!k) _exit(wrong(p,4*MIB,1)!=0); if(k<0||status_of(k)) return 2+i; } return wrong(p,48*MIB,1)!=0; }";
    let program = compile("slow_fork", body, &[]);
    let (mut run, parent, engine) = start(&program);
    let mut stopped = Vec::new();
    while run.try_wait().unwrap().is_none() {
        let children = process::children(parent).unwrap_or_default();
        let half_made = |pid: i32| process::threads(pid).is_ok_and(|threads| threads.len() > 1);
        let fresh = children.iter().find(|&&child| !stopped.contains(&child) && half_made(child));
        if let Some(&child) = fresh.filter(|_| stopped.len() < 3) {
            stopped.push(child);
            process::kill(engine, signal::SIGSTOP).unwrap();
            std::thread::sleep(LONGER_THAN_A_FREEZE);
            process::kill(engine, signal::SIGCONT).unwrap();
        }
    }
    let output = run.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert!(!stopped.is_empty(), "no child was seen in time");
}

/// A run of a program that prints its number, that number, and the engine's.
fn start(program: &str) -> (Child, i32, i32) {
    let mut run = within(24, &[program]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(run.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let parent: i32 = line.trim().parse().unwrap();
    let front = process::children(run.id() as i32).unwrap();
    let engine = front.into_iter().find(|&child| child != parent).expect("an engine");
    (run, parent, engine)
}

/// A child that was stopped while its stub was being started was taken for one that cannot be managed, and killed. Here the engine stands
/// still meanwhile, so that the stop comes before the stub's first call, between two of them, or to the stub itself. Some go on before the
/// engine does, and nothing of the stop may be left then; some while their stub is run alone.
#[test]
fn a_child_is_stopped_while_its_stub_is_started() {
    let body = "int main(){ char*p=area(48*MIB); fill(p,48*MIB,1); press(); printf(\"%d\\n\",getpid()); fflush(stdout);
          for(int i=0;i<90;i++){ pid_t k=fork(); if(!k) _exit(wrong(p,4*MIB,1)!=0); if(k<0||status_of(k)) return 2+i; } return wrong(p,48*MIB,1)!=0; }";
    let program = compile("stopped_child", body, &[]);
    let (mut run, parent, engine) = start(&program);
    let mut seen = Vec::new();
    // Children that stood still for us when they were stopped, by when they went on.
    let mut caught = [0; 3];
    while run.try_wait().unwrap().is_none() {
        let children = process::children(parent).unwrap_or_default();
        let Some(&child) = children.iter().find(|&&child| !seen.contains(&child)) else { continue };
        seen.push(child);
        // From the moment that it is there to the one that it runs.
        let turn = seen.len() as u64;
        let busy = Instant::now();
        while busy.elapsed() < Duration::from_micros(40 * (turn / 3 % 20)) {}
        process::kill(engine, signal::SIGSTOP).unwrap();
        std::thread::sleep(Duration::from_millis(2));
        let traced = process::thread_state(child, child).is_ok_and(|state| state == b't');
        let _ = process::kill(child, signal::SIGSTOP);
        std::thread::sleep(Duration::from_millis(2));
        if turn.is_multiple_of(3) {
            let _ = process::kill(child, signal::SIGCONT);
        }
        process::kill(engine, signal::SIGCONT).unwrap();
        match turn % 3 {
            1 => {
                let since = Instant::now();
                let state = || process::thread_state(child, child).unwrap_or(b'Z');
                while state() != b'Z' && state() != b'T' {
                    assert!(since.elapsed() < Duration::from_secs(20), "it was never stopped");
                    std::thread::sleep(Duration::from_millis(1));
                }
                assert!(!traced || state() == b'T', "child {turn} ended although it was stopped");
            }
            // A stub that does not say hello is looked at after 5 ms.
            2 => std::thread::sleep(Duration::from_micros(4000 + 100 * (turn / 3 % 30))),
            _ => {}
        }
        let _ = process::kill(child, signal::SIGCONT);
        caught[(turn % 3) as usize] += u32::from(traced);
    }
    let output = run.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert!(caught.iter().all(|&count| count > 0), "hardly any was caught in time: {caught:?}");
}

/// Each of fifty children had a page or two in most of its blocks: all blocks of all of them were looked through for each page that was
/// moved out, and what they had in common stayed while they took their own pages from each other. It did not end in minutes.
#[test]
fn fifty_children_with_scattered_pages_stand_still() {
    let body = "int main(){ size_t n=96*MIB, pages=n/4096; char*p=area(n); for(size_t i=0;i<pages;i++) fill(p+i*4096,4096,i); int up[2], go[2]; if(pipe(up)||pipe(go)) return 2;
          for(int k=0;k<50;k++){ pid_t pid=fork(); if(pid<0) return 3; if(pid) continue; close(go[1]); unsigned long x=k+1; int bad=0;
            for(int i=0;i<600;i++){ x=x*6364136223846793005ul+1442695040888963407ul; size_t at=(x>>33)%pages; bad|=wrong(p+at*4096,4096,at); }
            char c=bad; write(up[1],&c,1); read(go[0],&c,1); _exit(bad); }
          close(up[1]); int bad=0; for(int k=0;k<50;k++){ char c=1; read(up[0],&c,1); bad|=c; } close(go[1]);
          for(int k=0;k<50;k++){ int st=0; wait(&st); bad|=st; } for(size_t i=0;i<pages;i++) bad|=wrong(p+i*4096,4096,i); return bad?4:0; }";
    let program = compile("fifty_children", body, &[]);
    let run = within(48, &[&program]).output().unwrap();
    assert!(run.status.success(), "{}", text(&run));
}
