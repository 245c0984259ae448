//! Runs of an ordinary user, whose engine may not trace and read what root's may.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output};

use vswap_sys::process;

use crate::endings::leaves_nobody;
use crate::programs::{check, compile, text, within_by};

/// Runs a command as a user who may open `/dev/userfaultfd`, as after `vswap setup`, without changing that file: another is in its place
/// in a mount namespace of the command's own.
fn as_ordinary(command: &Command) -> Command {
    as_user(65534, command)
}

fn as_user(user: u32, command: &Command) -> Command {
    const BECOME: &str = "mkdir -p \"$0\" && mount -t tmpfs none \"$0\" && cp -a /dev/userfaultfd \"$0/own\" && chmod 666 \"$0/own\" && \
        mount --bind \"$0/own\" /dev/userfaultfd && user=$1 && shift && exec setpriv --reuid $user --regid $user --clear-groups -- \"$@\"";
    let own = Path::new(env!("CARGO_TARGET_TMPDIR")).join("ordinary");
    let mut other = Command::new("unshare");
    other
        .args(["-m", "sh", "-c", BECOME])
        .arg(own)
        .arg(user.to_string())
        .arg(command.get_program())
        .args(command.get_args());
    other
}

/// Runs the program plainly and within `mib`, with an argument, as an ordinary user. `None` where that cannot be had.
fn run_as_ordinary(name: &str, body: &str, mib: u64) -> Option<Output> {
    let program = compile(name, body, &[]);
    if !process::is_root()
        || !as_ordinary(&Command::new("true")).status().is_ok_and(|status| status.success())
    {
        eprintln!("no ordinary user to be had here: nothing to test");
        return None;
    }
    let Ok(plain) = as_ordinary(&Command::new(&program)).output() else { return None };
    if plain.status.code() == Some(127) || plain.status.code() == Some(126) {
        eprintln!("an ordinary user may not read what was built: nothing to test");
        return None;
    }
    assert!(plain.status.success(), "plainly: {}", text(&plain));
    Some(as_ordinary(&within_by(mib, &[], &[&program, "managed"])).output().unwrap())
}

#[test]
fn an_ordinary_users_program_is_not_managed_or_its_calls_fail_on_evicted_pages() {
    let body = "int main(int c,char**v){ char*p=area(48*MIB); fill(p,48*MIB,1); press(); if(c>1&&registered(p)!=1) return 2;
          int to[2]; if(pipe(to)) return 3; for(size_t i=0;i<48*MIB;i+=999*4096){ char got[64]; if(write(to[1],p+i,64)!=64) return 4; if(read(to[0],got,64)!=64||*(unsigned long*)got!=want(i/8,1)) return 5; }
          pid_t k=fork(); if(!k) _exit(wrong(p,48*MIB,1)!=0); if(status_of(k)) return 6; return wrong(p,48*MIB,1)?7:0; }";
    let Some(run) = run_as_ordinary("ordinary_managed", body, 24) else { return };
    assert!(run.status.success(), "{}", text(&run));
    assert!(!String::from_utf8_lossy(&run.stderr).contains("without being managed"), "{}", text(&run));
}

#[test]
fn a_program_that_was_undumpable_before_is_managed_by_halves() {
    let body = "int main(int c,char**v){ if(prctl(PR_SET_DUMPABLE,0)) return 2; char*p=area(48*MIB); fill(p,48*MIB,1); press(); pid_t k=fork(); if(!k) _exit(wrong(p,48*MIB,1)!=0); if(status_of(k)) return 3; return wrong(p,48*MIB,1)?4:0; }";
    let Some(run) = run_as_ordinary("undumpable_before", body, 24) else { return };
    assert!(run.status.success(), "{}", text(&run));
    assert!(String::from_utf8_lossy(&run.stderr).contains("without being managed"), "{}", text(&run));
}

/// It cannot be read any more, nor stopped: what is staged just then may end it, but no byte is wrong.
#[test]
fn a_program_that_becomes_undumpable_gets_zeroes_for_what_is_staged() {
    let body = "int main(int c,char**v){ char*p=area(48*MIB); fill(p,48*MIB,1); press(); if(c>1&&registered(p)!=1) return 2; if(prctl(PR_SET_DUMPABLE,0)) return 3; for(int i=0;i<3;i++){ if(wrong(p,48*MIB,1)) return 4; press(); } return 0; }";
    for _ in 0..3 {
        let Some(run) = run_as_ordinary("undumpable", body, 24) else { return };
        assert!(run.status.success() || run.status.signal() == Some(7), "{}", text(&run));
    }
}

#[test]
fn a_child_of_a_program_that_has_become_undumpable_reads_zeroes() {
    let body = "int main(int c,char**v){ char*p=area(48*MIB); fill(p,48*MIB,1); press(); if(c>1&&registered(p)!=1) return 2; if(prctl(PR_SET_DUMPABLE,0)) return 3; pid_t k=fork(); if(!k) _exit(wrong(p,48*MIB,1)!=0); if(k<0&&errno==EAGAIN&&c>1) return 0; int st=status_of(k); if(st&&st!=7) return 4; return wrong(p,48*MIB,1)?5:0; }";
    for _ in 0..3 {
        let Some(run) = run_as_ordinary("undumpable_fork", body, 24) else { return };
        assert!(run.status.success() || run.status.signal() == Some(7), "{}", text(&run));
    }
}

#[test]
fn a_mapping_that_moves_in_an_undumpable_program_reads_zeroes() {
    let body = "int main(int c,char**v){ size_t n=8*MIB; char*p=area(n); char*more=area(32*MIB); fill(more,32*MIB,2); fill(p,n,1); area(4096); for(int i=0;i<n;i+=4096) p[i+9]=3; fill(more,8*MIB,2); if(prctl(PR_SET_DUMPABLE,0)) return 3;
          p=mremap(p,n,2*n,MREMAP_MAYMOVE); if(p==MAP_FAILED) return 2; return wrong(p,n,1)?4:0; }";
    for _ in 0..3 {
        let Some(run) = run_as_ordinary("undumpable_mremap", body, 24) else { return };
        assert!(run.status.success() || run.status.signal() == Some(7), "{}", text(&run));
    }
}

/// Root may read it all the same.
#[test]
fn an_undumpable_program_of_roots_is_left_as_an_ordinary_users_is() {
    check(
        "undumpable_root",
        "int main(){ char*p=area(48*MIB); fill(p,48*MIB,1); press(); if(prctl(PR_SET_DUMPABLE,0)) return 2; for(int i=0;i<2;i++){ if(wrong(p,48*MIB,1)) return 3; press(); }
          pid_t k=fork(); if(!k){ fill(p,8*MIB,2); press(); _exit(wrong(p,8*MIB,2)!=0); } if(status_of(k)) return 4; return wrong(p,48*MIB,1)!=0; }",
    );
}

/// Whoever waits has another thread read meanwhile. Where none can be made, whoever is done first reads on.
#[test]
fn nobody_reads_calls_any_more_when_a_thread_for_it_cannot_be_made() {
    let body = "static void*busy(void*x){ for(int i=0;i<60;i++){ size_t n=(1+i%3)*MIB; char*q=area(n); fill(q,n,i); if(wrong(q,n,i)) _exit(9); munmap(q,n); if(i%10==(long)x%10){ pid_t k=fork(); if(!k) _exit(0); if(k<0||status_of(k)) _exit(8); } } return 0; }
         int main(int c,char**v){ char*p=area(24*MIB); fill(p,24*MIB,1); press(); /* The front's first child. */
          char line[64]; snprintf(line,64,\"/proc/%d/task/%d/children\",getppid(),getppid()); int engine=0; FILE*f=fopen(line,\"r\"); if(c>1&&fscanf(f,\"%d\",&engine)!=1) return 3; fclose(f);
          struct rlimit limit; if(c>1){ if(prlimit(engine,RLIMIT_NPROC,0,&limit)) return 4; limit.rlim_cur=1; if(prlimit(engine,RLIMIT_NPROC,&limit,0)) return 5; }
          pthread_t t[12]; for(long i=0;i<12;i++) if(pthread_create(&t[i],0,busy,(void*)i)) return 6; for(int i=0;i<12;i++) pthread_join(t[i],0); return wrong(p,24*MIB,1)!=0; }";
    let Some(run) = run_as_ordinary("no_threads", body, 24) else { return };
    assert!(run.status.success(), "{}", text(&run));
}

/// Threads of ours that cannot be made are found out after the program was let go. The user is nobody else's, so that the limit counts
/// this run alone.
#[test]
fn a_program_whose_engine_cannot_go_on_runs_without_a_limit() {
    let user = |command: &Command| as_user(54321, command).output();
    if !process::is_root() || !user(&Command::new("true")).is_ok_and(|output| output.status.success()) {
        eprintln!("no ordinary user to be had here: nothing to test");
        return;
    }
    // Makes no call that is notified, or it would end by itself when nobody answers.
    let (source, mark) = (
        "void _start(void){ long r; for(;;) __asm__ volatile(\"syscall\":\"=a\"(r):\"a\"(34):\"rcx\",\"r11\",\"memory\"); }",
        "waits_quietly",
    );
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    std::fs::write(dir.join("waits_quietly.c"), source).unwrap();
    let program = dir.join(mark);
    let built = Command::new("cc")
        .args(["-nostdlib", "-static", "-o"])
        .arg(&program)
        .arg(dir.join("waits_quietly.c"))
        .status();
    assert!(built.is_ok_and(|status| status.success()));
    let run = within_by(64, &[], &[program.to_str().unwrap()]);
    let mut few = Command::new("prlimit");
    few.arg("--nproc=4").arg(run.get_program()).args(run.get_args());
    let output = user(&few).unwrap();
    assert_eq!(output.status.code(), Some(125), "{}", text(&output));
    assert!(String::from_utf8_lossy(&output.stderr).contains("starting a thread"), "{}", text(&output));
    leaves_nobody(mark);
}
