//! What the kernel or another process does with pages that are out, and what a managed program leaves when it ends.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use vswap_sys::process;

use crate::programs::{check, compile, text, within_by};

/// A process that shares the memory, as a stub could be, would hold these for as long as it takes to free the memory.
#[test]
fn an_ended_program_still_holds_its_locks_and_its_file() {
    check(
        "lock_left",
        "#include <sys/file.h>\nint main(int c,char**v){ char name[300], copy[300], line[400]; snprintf(name,300,\"%s.lock\",v[0]); snprintf(copy,300,\"%s.copy\",v[0]);
          if(c>1){ int f=open(name,O_RDWR|O_CREAT,0600); if(flock(f,LOCK_EX|LOCK_NB)) return 9; mmap(0,4096,3,MAP_SHARED,f,0); char*p=area(48*MIB); fill(p,48*MIB,1); press(); if(wrong(p,48*MIB,1)) return 8; kill(getpid(),9); }
          snprintf(line,400,\"cp %s %s\",v[0],copy); if(system(line)) return 2;
          for(int i=0;i<3;i++){ pid_t k=fork(); if(!k){ execl(copy,copy,\"x\",(char*)0); _exit(7); } snprintf(name,300,\"%s.lock\",copy); if(status_of(k)!=9) return 3;
            int f=open(name,O_RDWR); if(f<0||flock(f,LOCK_EX|LOCK_NB)) return 4; close(f); f=open(copy,O_RDWR); if(f<0) return 5; close(f); }
          return 0; }",
    );
}

/// Pages can be moved only between mappings of the same rights; what is out comes back into any.
#[test]
fn evicted_pages_are_lost_to_mappings_that_may_not_be_written() {
    check(
        "rights",
        "int main(){ size_t n=16*MIB; char*p=area(n), *q=area(n), *x=area(n); fill(p,n,1); fill(q,n,2); for(size_t i=0;i<n;i+=4096) memcpy(x+i,\"\\xb8\\x2a\\0\\0\\0\\xc3\",6); press();
          if(mprotect(p,n,PROT_READ)||mprotect(q,n,PROT_NONE)||mprotect(x,n,PROT_READ|PROT_EXEC)) return 2;
          for(int r=0;r<2;r++){ if(wrong(p,n,1)) return 3; for(size_t i=0;i<n;i+=4096) if(((int(*)(void))(x+i))()!=42) return 4; press(); }
          pid_t k=fork(); if(!k){ if(mprotect(q,n,PROT_READ)) _exit(1); if(wrong(p,n,1)||wrong(q,n,2)) _exit(2); for(size_t i=0;i<n;i+=4096) if(((int(*)(void))(x+i))()!=42) _exit(3); _exit(0); } if(status_of(k)) return 8;
          if(mprotect(q,n,PROT_READ|PROT_WRITE)) return 5; if(wrong(q,n,2)) return 6; if(mprotect(p,n,PROT_READ|PROT_WRITE)) return 7; fill(p,n,3); press(); return wrong(p,n,3)!=0; }",
    );
}

#[test]
fn another_process_cannot_read_what_is_out() {
    check(
        "vm_readv",
        "#include <sys/uio.h>\nint main(){ size_t n=48*MIB; char*p=area(n); int to[2], back[2]; if(pipe(to)||pipe(back)) return 9; pid_t reader=fork(), me=getppid(); char c;
          if(!reader){ read(to[0],&c,1); static char got[64*4096]; int bad=0; for(size_t i=0;i<n;i+=sizeof got){ struct iovec a={got,sizeof got}, b={p+i,sizeof got}; if(process_vm_readv(me,&a,1,&b,1,0)!=sizeof got) _exit(2); for(size_t k=0;k<sizeof got/8;k+=64) bad+=((unsigned long*)got)[k]!=want(i/8+k,1); } _exit(bad!=0); }
          fill(p,n,1); press(); write(to[1],to,1); return status_of(reader)!=0; }",
    );
}

/// `mlockall` of what is there now waits in the kernel for pages that are out, for ever.
#[test]
fn locking_all_memory_hangs_where_pages_are_out() {
    check(
        "mlockall",
        "int main(){ alarm(60); char*p=area(48*MIB); fill(p,48*MIB,1); press(); int r=mlockall(MCL_CURRENT); if(r&&errno!=ENOMEM&&errno!=EPERM) return 2; if(wrong(p,48*MIB,1)) return 3; munlockall(); r=mlock(p,2*MIB); if(r&&errno!=ENOMEM&&errno!=EPERM) return 4; press(); return wrong(p,48*MIB,1)!=0; }",
    );
}

/// Options of the tracer go on to a child that it is given: with them the child's stub would be traced, and wait for ever for a word.
#[test]
fn the_stub_of_a_child_is_traced() {
    check(
        "tracer",
        "#include <dirent.h>\nint main(){ char*p=area(48*MIB); fill(p,48*MIB,1); press(); for(int i=0;i<3;i++){ pid_t k=fork(); if(!k){ if(wrong(p,48*MIB,1)) _exit(1); DIR*d=opendir(\"/proc/self/task\"); struct dirent*t; int bad=0; while((t=readdir(d))) if(t->d_name[0]!='.'){ char n[300], line[256]; snprintf(n,300,\"/proc/self/task/%s/status\",t->d_name); FILE*f=fopen(n,\"r\"); int by; while(f&&fgets(line,256,f)) if(sscanf(line,\"TracerPid: %d\",&by)==1) bad+=by!=0; if(f) fclose(f); } _exit(bad); } if(status_of(k)) return 2; } return 0; }",
    );
}

/// There is one listener to a chain of filters, and it is vswap's.
#[test]
fn a_listener_of_the_programs_own_takes_the_calls_of_the_run() {
    let body = "#include <linux/filter.h>\n#include <linux/seccomp.h>\nint main(int c,char**v){ char*p=area(48*MIB); fill(p,48*MIB,1); press(); struct sock_filter all[]={{BPF_RET|BPF_K,0,0,SECCOMP_RET_ALLOW}}; struct sock_fprog f={1,all}; prctl(PR_SET_NO_NEW_PRIVS,1,0,0,0);
          int r=syscall(SYS_seccomp,SECCOMP_SET_MODE_FILTER,SECCOMP_FILTER_FLAG_NEW_LISTENER,&f); if(r>=0||errno!=EBUSY) return 2; press(); char*q=area(8*MIB); fill(q,8*MIB,2); return wrong(p,48*MIB,1)||wrong(q,8*MIB,2)?3:7; }";
    let program = compile("own_listener", body, &[]);
    let plain = Command::new(&program).output().unwrap();
    assert_eq!(plain.status.code(), Some(2), "plainly it gets its listener: {}", text(&plain));
    let run = within_by(24, &[], &[&program]).output().unwrap();
    assert_eq!(run.status.code(), Some(7), "{}", text(&run));
}

/// A page that cannot be read back is told to be so: SIGBUS, neither zeroes nor other bytes.
#[test]
fn a_page_whose_copy_on_disk_is_spoilt_reads_as_something_else() {
    let body = "static unsigned long mix(unsigned long x){ x^=x>>30; x*=0xbf58476d1ce4e5b9ul; x^=x>>27; x*=0x94d049bb133111ebul; return x^x>>31; }
         int main(){ size_t n=48*MIB/8; unsigned long*p=(void*)area(n*8); for(size_t i=0;i<n;i++) p[i]=mix(i+1); puts(\"full\"); fflush(stdout); char c; if(read(0,&c,1)!=1) return 2;
          for(size_t i=0;i<n;i++) if(p[i]!=mix(i+1)) return 3; return 0; }";
    let program = compile("spoilt", body, &[]);
    let mut run = within_by(24, &["disk=64"], &[&program])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(run.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "full\n");
    let engine = process::children(run.id() as i32).unwrap()[0];
    let fds = std::fs::read_dir(format!("/proc/{engine}/fd")).unwrap().flatten();
    let on_disk = |path: &std::path::PathBuf| {
        let to = std::fs::read_link(path).unwrap_or_default();
        std::fs::metadata(path).is_ok_and(|file| file.is_file() && file.len() > 1 << 20)
            && to.to_string_lossy().ends_with("(deleted)")
            && !to.to_string_lossy().contains("memfd")
    };
    let files: Vec<_> = fds.map(|entry| entry.path()).filter(on_disk).collect();
    assert!(!files.is_empty(), "no file of segments is open in the engine");
    for path in files {
        let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
        let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes.iter_mut().step_by(1000).for_each(|byte| *byte ^= 1);
        file.write_all_at(&bytes, 0).unwrap();
    }
    run.stdin.take().unwrap().write_all(b"1").unwrap();
    let ended = run.wait_with_output().unwrap();
    assert_eq!(ended.status.signal(), Some(7), "{}", text(&ended));
    // Whose page it is, where it was, and what is wrong there.
    let said = String::from_utf8_lossy(&ended.stderr);
    for part in ["SIGBUS: process ", ", address 0x", ", tier 0 (", "), offset 0x", ": seal "] {
        assert!(said.contains(part), "{part} is missing: {}", text(&ended));
    }
}
