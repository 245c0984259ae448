//! What cannot be managed or kept is said, once, with what it means; the program's result is that of a plain run.

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Command;

use crate::programs::{compile, text, within, within_by};

/// Lines of vswap's own, all of them.
fn said(output: &std::process::Output) -> Vec<String> {
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    err.lines().filter(|line| line.starts_with("vswap: ")).map(str::to_owned).collect()
}

/// 96 MiB that compress to nothing less, written and then checked twice.
const NOISE: &str = "static unsigned long mix(unsigned long x){ x^=x>>30; x*=0xbf58476d1ce4e5b9ul; x^=x>>27; x*=0x94d049bb133111ebul; return x^x>>31; }
  int main(){ size_t n=96*MIB/8; unsigned long*p=(void*)area(n*8); for(size_t i=0;i<n;i++) p[i]=mix(i+1);
  for(int r=0;r<2;r++) for(size_t i=0;i<n;i+=64) if(p[i]!=mix(i+1)) return 1; puts(\"all right\"); return 5; }";

/// Runs it within 24 MiB and 16 MiB of disk; gives how it ended, what it said, and that vswap said once that the disk is full.
fn fill_the_disk(name: &str, options: &[&str]) -> (std::process::ExitStatus, String) {
    let program = compile(name, NOISE, &[]);
    let options: Vec<_> = ["disk=16"].into_iter().chain(options.iter().copied()).collect();
    let run = within_by(24, &options, &[&program]).output().unwrap();
    let said = said(&run);
    assert!(said.len() == 1 && said[0].contains("disk") && said[0].contains("24.0 MiB"), "{}", text(&run));
    (run.status, String::from_utf8_lossy(&run.stdout).into_owned())
}

#[test]
fn a_disk_that_is_full_midway_lets_the_run_grow_and_says_so_once() {
    let (status, out) = fill_the_disk("noise_grow", &[]);
    assert_eq!((status.code(), out.as_str()), (Some(5), "all right\n"));
}

#[test]
fn a_disk_that_is_full_midway_kills_the_run_with_the_figures_if_asked() {
    let (status, out) = fill_the_disk("noise_kill", &["kill"]);
    assert_eq!((status.signal(), out.as_str()), (Some(9), ""));
}

/// Shared memory cannot be moved out, and a program that has nothing else is never managed.
#[test]
fn memory_that_cannot_be_moved_out_counts_even_if_nothing_is_managed() {
    let body = "int main(){ size_t n=64*MIB; char*p=mmap(0,n,3,MAP_SHARED|MAP_ANONYMOUS,-1,0); fill(p,n,1); sleep(2); return wrong(p,n,1)!=0; }";
    let program = compile("shared", body, &[]);
    let run = within(24, &[&program]).output().unwrap();
    assert!(run.status.success() && said(&run).len() == 1, "{}", text(&run));
    let run = within_by(24, &["kill"], &[&program]).output().unwrap();
    assert!(run.status.signal() == Some(9) && said(&run).len() == 1, "{}", text(&run));
}

#[test]
fn a_program_that_a_debugger_holds_runs_without_being_managed() {
    let body = "#include <sys/ptrace.h>
      int main(){ pid_t k=fork(); if(!k){ ptrace(PTRACE_TRACEME,0,0,0); raise(SIGSTOP); char*p=area(48*MIB); fill(p,48*MIB,1); area(4096); _exit(wrong(p,48*MIB,1)?1:registered(p)?2:7);}
        int st; while(waitpid(k,&st,0)==k&&!WIFEXITED(st)&&!WIFSIGNALED(st)) ptrace(PTRACE_CONT,k,0,WIFSTOPPED(st)&&WSTOPSIG(st)!=SIGSTOP&&WSTOPSIG(st)!=SIGTRAP?WSTOPSIG(st):0);
        return WIFEXITED(st)?WEXITSTATUS(st):99; }";
    let program = compile("debugged", body, &[]);
    let run = within(64, &[&program]).output().unwrap();
    assert_eq!(run.status.code(), Some(7), "{}", text(&run));
    let said = said(&run);
    assert!(said.len() == 1 && said[0].contains("without being managed"), "{said:?}");
}

/// It might kill the program for a call of the stub's.
#[test]
fn a_program_with_a_filter_of_its_own_runs_without_being_managed() {
    let body = "#include <linux/filter.h>
      #include <linux/seccomp.h>
      int main(){ struct sock_filter all[]={{BPF_RET|BPF_K,0,0,SECCOMP_RET_ALLOW}}; struct sock_fprog f={1,all};
        if(prctl(PR_SET_NO_NEW_PRIVS,1,0,0,0)||prctl(PR_SET_SECCOMP,SECCOMP_MODE_FILTER,&f)) return 1;
        char*p=area(48*MIB); fill(p,48*MIB,1); area(4096); return wrong(p,48*MIB,1)?2:registered(p)?3:7; }";
    let program = compile("filtered", body, &[]);
    let run = within(64, &[&program]).output().unwrap();
    assert_eq!(run.status.code(), Some(7), "{}", text(&run));
    let said = said(&run);
    assert!(said.len() == 1 && said[0].contains("filter of its own"), "{said:?}");
}

/// A 32-bit ELF that writes to each of 8192 pages, sleeps a second, and ends with 42.
fn thirty_two_bit() -> PathBuf {
    const BASE: u32 = 0x0804_8000;
    const BSS: u32 = 0x0900_0000;
    const PAGES: u32 = 8192;
    let mut code: Vec<u8> = Vec::new();
    code.extend([0xbf]); // mov edi, BSS
    code.extend(BSS.to_le_bytes());
    code.extend([0xb9]); // mov ecx, PAGES
    code.extend(PAGES.to_le_bytes());
    code.extend([0xc6, 0x07, 0x01]); // mov byte [edi], 1
    code.extend([0x81, 0xc7, 0x00, 0x10, 0x00, 0x00]); // add edi, 4096
    code.extend([0x49, 0x75, 0xf4]); // dec ecx; jnz back to the mov
    code.extend([0x6a, 0x00, 0x6a, 0x01]); // push 0; push 1: a timespec
    code.extend([0x89, 0xe3, 0x31, 0xc9]); // mov ebx, esp; xor ecx, ecx
    code.extend([0xb8, 162, 0, 0, 0, 0xcd, 0x80]); // mov eax, nanosleep; int 0x80
    code.extend([0xbb, 42, 0, 0, 0]); // mov ebx, 42
    code.extend([0xb8, 1, 0, 0, 0, 0xcd, 0x80]); // mov eax, exit; int 0x80
    let header = 52 + 2 * 32;
    let mut elf: Vec<u8> = b"\x7fELF\x01\x01\x01".to_vec();
    elf.resize(16, 0);
    let mut words = |values: &[u32]| values.iter().for_each(|v| elf.extend(v.to_le_bytes()));
    // Type and machine; version; entry, program headers, section headers, flags; then sizes and counts in halves.
    words(&[3 << 16 | 2, 1, BASE + header, 52, 0, 0, 32 << 16 | 52, 2, 0]);
    let length = header + code.len() as u32;
    words(&[1, 0, BASE, BASE, length, length, 5, 4096]);
    words(&[1, 0, BSS, BSS, 0, PAGES * 4096, 6, 4096]);
    elf.extend(code);
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("thirty-two-bit");
    std::fs::write(&path, elf).unwrap();
    assert!(Command::new("chmod").arg("755").arg(&path).status().unwrap().success());
    path
}

#[test]
fn a_32_bit_program_runs_counted_with_one_warning() {
    let program = thirty_two_bit();
    match Command::new(&program).status() {
        Ok(status) => assert_eq!(status.code(), Some(42), "plainly"),
        Err(error) => return eprintln!("this kernel runs no 32-bit programs ({error}): nothing to test"),
    }
    let run = within(64, &[program.to_str().unwrap()]).output().unwrap();
    assert_eq!(run.status.code(), Some(42), "{}", text(&run));
    let said = said(&run);
    assert!(said.len() == 1 && said[0].contains("32-bit"), "{said:?}");
}
