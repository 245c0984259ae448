//! One test for each trap that was met on the way into a process: what would go wrong is in its name.

use crate::programs::{check, compile, text, within, within_by};

#[test]
fn a_forked_child_reads_zeroes_where_its_parents_pages_are_out() {
    check(
        "fork_reads",
        "int main(){ char*p=area(48*MIB); fill(p,48*MIB,1); press();
          for(int k=0;k<3;k++){ pid_t c=fork(); if(!c){ int b=wrong(p,48*MIB,1); fill(p,16*MIB,2); b+=wrong(p,16*MIB,2); _exit(b!=0);} 
            if(status_of(c)) return 1; } return wrong(p,48*MIB,1)!=0; }",
    );
}

#[test]
fn a_child_tid_written_before_the_first_instruction_wipes_an_evicted_page() {
    check(
        "child_tid",
        "int main(){ char*d=area(4096); memset(d,0xab,4096); char*more=area(32*MIB); fill(more,32*MIB,3); press();
          long k=syscall(SYS_clone,CLONE_CHILD_SETTID|SIGCHLD,0,0,d+100,0);
          if(!k){ int bad=(unsigned char)d[0]!=0xab||(unsigned char)d[4095]!=0xab||*(int*)(d+100)!=getpid(); _exit(bad);} 
          return status_of(k)!=0; }",
    );
}

#[test]
fn an_evicted_clear_child_tid_leaves_a_join_hanging() {
    check(
        "clear_tid",
        "static int t(void*x){ while(!*(volatile int*)x) usleep(1000); syscall(SYS_exit,0); return 0; }
         int main(){ int*go=(int*)area(4096); char*st=area(65536); int*word=(int*)area(4096); char*more=area(32*MIB); fill(more,32*MIB,3);
          *word=77; clone(t,st+65536,CLONE_VM|CLONE_FS|CLONE_FILES|CLONE_SIGHAND|CLONE_THREAD|CLONE_SYSVSEM|CLONE_CHILD_CLEARTID,go,0,0,word);
          press(); *go=1; for(int i=0;i<2000&&*(volatile int*)word;i++) usleep(1000); return *word!=0; }",
    );
}

#[test]
fn an_evicted_robust_list_is_not_walked_when_its_thread_dies() {
    check(
        "robust",
        "static pthread_mutex_t*mx; static void*t(void*x){ pthread_mutex_lock(mx); *(volatile int*)x=1; for(;;) pause(); }
         int main(){ mx=mmap(0,4096,3,MAP_SHARED|MAP_ANONYMOUS,-1,0); volatile int*up=mmap(0,4096,3,MAP_SHARED|MAP_ANONYMOUS,-1,0);
          pthread_mutexattr_t a; pthread_mutexattr_init(&a); pthread_mutexattr_setpshared(&a,1); pthread_mutexattr_setrobust(&a,1); pthread_mutex_init(mx,&a);
          pid_t k=fork(); if(!k){ char*more=area(32*MIB); fill(more,32*MIB,3); pthread_t h; pthread_create(&h,0,t,(void*)up); while(!*up) usleep(1000); press(); up[1]=1; for(;;) pause(); }
          while(!up[1]) usleep(1000); kill(k,9); status_of(k); struct timespec ts; clock_gettime(CLOCK_REALTIME,&ts); ts.tv_sec+=5;
          return pthread_mutex_timedlock(mx,&ts)!=EOWNERDEAD; }",
    );
}

#[test]
fn write_protection_lost_in_a_fork_makes_a_childs_write_vanish() {
    check(
        "wp_fork",
        "int main(){ char*p=area(48*MIB); fill(p,48*MIB,1); press(); if(wrong(p,48*MIB,1)) return 2; 
          pid_t c=fork(); if(!c){ for(int r=2;r<5;r++){ fill(p,48*MIB,r); press(); if(wrong(p,48*MIB,r)) _exit(1);} _exit(0);} 
          int st=status_of(c); return st || wrong(p,48*MIB,1); }",
    );
}

#[test]
fn a_program_that_closes_every_descriptor_closes_the_userfaultfd() {
    check(
        "close_all",
        "int main(){ char*p=area(48*MIB); fill(p,48*MIB,1); for(int i=3;i<1024;i++) close(i); syscall(SYS_close_range,3,~0u,0); press(); return wrong(p,48*MIB,1)!=0; }",
    );
}

#[test]
fn a_main_thread_that_exits_alone_leaves_the_process_to_the_stub() {
    check(
        "main_exits",
        "static void*t(void*x){ usleep(100000); puts(\"done\"); fflush(stdout); return 0; }
         int main(){ char*p=area(48*MIB); fill(p,48*MIB,1); press(); pthread_t h; pthread_create(&h,0,t,0); syscall(SYS_exit,0); }",
    );
}

#[test]
fn unshare_of_the_user_namespace_fails_beside_a_second_thread() {
    check(
        "unshare",
        "int main(){ char*p=area(48*MIB); fill(p,48*MIB,1); if(unshare(CLONE_NEWUSER)&&errno!=EPERM&&errno!=ENOSPC) { perror(\"unshare\"); return 1; } return wrong(p,48*MIB,1)!=0; }",
    );
}

#[test]
fn a_failed_exec_changes_something() {
    check(
        "failed_exec",
        "int main(){ char*p=area(48*MIB); fill(p,48*MIB,1); press(); execl(\"/no/such\",\"x\",(char*)0); execl(\"/etc/passwd\",\"x\",(char*)0); press(); return wrong(p,48*MIB,1)!=0; }",
    );
}

#[test]
fn an_exec_is_answered_with_the_old_images_state() {
    check(
        "exec_self",
        "int main(int c,char**v){ char*p=area(48*MIB); fill(p,48*MIB,c); press(); if(wrong(p,48*MIB,c)) return 1; if(c<4){ char*a[]={v[0],\"x\",c>1?\"y\":0,c>2?\"z\":0,0}; execv(\"/proc/self/exe\",a); return 3;} return 0; }",
    );
}

#[test]
fn a_vforked_or_spawned_child_breaks_its_parents_memory() {
    check(
        "spawn",
        "extern char**environ; int main(){ char*p=area(48*MIB); fill(p,48*MIB,1); press(); for(int i=0;i<5;i++){ pid_t k; char*a[]={\"true\",0}; if(posix_spawnp(&k,\"true\",0,0,a,environ)) return 2; if(status_of(k)) return 3; 
           k=vfork(); if(!k){ execlp(\"true\",\"true\",(char*)0); _exit(9);} if(status_of(k)) return 4; press(); } return wrong(p,48*MIB,1)!=0; }",
    );
}

#[test]
fn bytes_get_lost_when_a_mapping_moves_or_grows() {
    check(
        "mremap",
        "int main(){ size_t n=8*MIB; char*p=area(n); fill(p,n,1); while(n<64*MIB){ press(); char*q=mremap(p,n,n*2,MREMAP_MAYMOVE); if(q==MAP_FAILED) return 2; p=q; if(wrong(p,n,1)) return 3; n*=2; fill(p,n,1); press(); area(4096);} return wrong(p,n,1)!=0; }",
    );
}

#[test]
fn a_new_mapping_at_old_addresses_shows_old_bytes() {
    check(
        "fixed",
        "int main(){ size_t n=32*MIB; char*p=area(n); for(int r=0;r<4;r++){ fill(p,n,r); press(); if(wrong(p,n,r)) return 1; 
           if(r&1) { munmap(p,n); if(mmap(p,n,3,MAP_PRIVATE|MAP_ANONYMOUS|MAP_FIXED,-1,0)!=p) return 2; } else if(r&2) madvise(p,n,MADV_DONTNEED); else mmap(p,n,3,MAP_PRIVATE|MAP_ANONYMOUS|MAP_FIXED,-1,0);
           for(size_t i=0;i<n;i+=4096) if(p[i]) return 3; } return 0; }",
    );
}

#[test]
fn a_large_bss_makes_no_call_and_is_never_managed() {
    check(
        "bss",
        "static char big[128<<20]; int main(){ fill(big,sizeof big,1); press(); return wrong(big,sizeof big,1)!=0; }",
    );
}

#[test]
fn a_shrinking_and_growing_heap_is_confused() {
    check(
        "heap",
        "int main(){ char*base=sbrk(0); for(int r=0;r<6;r++){ char*p=sbrk(40*MIB); if(p==(void*)-1) return 2; fill(p,40*MIB,r); press(); if(wrong(p,40*MIB,r)) return 3; if(r%2) sbrk(-(long)(60*MIB)); } return 0; }",
    );
}

#[test]
fn a_child_finds_pages_that_it_should_find_empty() {
    check(
        "wipe",
        "int main(){ char*p=area(32*MIB); char*w=area(MIB); if(madvise(w,MIB,MADV_WIPEONFORK)) return 2; fill(w,MIB,7); fill(p,32*MIB,1); press(); pid_t c=fork(); if(!c){ for(size_t i=0;i<MIB;i+=4096) if(w[i]||w[i+512]) _exit(1); fill(w,MIB,9); press(); _exit(wrong(w,MIB,9)||wrong(p,32*MIB,1)); } return status_of(c) || wrong(w,MIB,7); }",
    );
}

#[test]
fn signals_restart_a_notified_call_and_lose_its_answer() {
    check(
        "signals",
        "static volatile int n; static void h(int s){ n++; } int main(){ struct sigaction a={.sa_handler=h,.sa_flags=SA_RESTART}; sigaction(SIGALRM,&a,0); struct itimerval {struct timeval i,v;} t={{0,500},{0,500}}; syscall(SYS_setitimer,0,&t,0); 
           for(int i=0;i<200;i++){ size_t s=(1+i%7)*MIB; char*p=area(s); fill(p,s,i); if(wrong(p,s,i)) return 1; if(munmap(p,s)) return 2; pid_t c=fork(); if(c<0) return 3; if(!c) _exit(0); if(i%10==0) press(); int st; while(waitpid(c,&st,0)<0&&errno==EINTR); } return 0; }",
    );
}

#[test]
fn a_static_program_has_no_library_to_hook() {
    let body = "int main(){ char*p=malloc(64*MIB); fill(p,64*MIB,1); press(); return wrong(p,64*MIB,1)!=0; }";
    let program = compile("static", body, &["-static"]);
    let run = within(24, &[&program]).output().unwrap();
    assert!(run.status.success(), "{}", text(&run));
}

#[test]
fn threads_that_grow_at_once_get_two_stubs() {
    check(
        "threads",
        "static void*t(void*x){ long k=(long)x; int bad=0; for(int i=0;i<6;i++){ size_t n=(4+k)*MIB; char*p=area(n); fill(p,n,k); sched_yield(); bad+=wrong(p,n,k); munmap(p,n);} return (void*)(long)bad; }
         int main(){ for(int r=0;r<4;r++){ pthread_t h[8]; for(long k=0;k<8;k++) pthread_create(&h[k],0,t,(void*)k); for(int k=0;k<8;k++){ void*b; pthread_join(h[k],&b); if(b) return 1; } } return 0; }",
    );
}

/// The kernel reports MADV_FREE as a discard and leaves the pages where they are: a write after it raises no fault.
#[test]
fn a_write_after_madv_free_is_lost() {
    check(
        "free",
        "int main(){ size_t n=24*MIB; char*p=area(n); for(int r=1;r<5;r++){ fill(p,n,r); press(); fill(p,n,r+10); if(madvise(p,n,MADV_FREE)) return 2; fill(p,n,r+20); press(); if(wrong(p,n,r+20)) return 3; } return 0; }",
    );
}

/// Other threads' writes between the copy of the page table and the share of the slots made child or parent wrong.
#[test]
fn threads_that_write_while_the_process_forks_spoil_a_copy() {
    check(
        "forkthreads",
        "static char*p; static volatile int over; enum{PAGES=6144};
         static unsigned long last[2][PAGES];
         static void*writer(void*a){ long me=(long)a; unsigned long v=0; while(!over){ v++; for(size_t i=me;i<PAGES&&!over;i+=2){ *(volatile unsigned long*)(p+i*4096+8*me)=(i<<32)|v; last[me][i]=v; } } return 0; }
         int main(){ p=area(PAGES*4096ul); for(size_t i=0;i<PAGES;i++) *(unsigned long*)(p+i*4096+8*(i%2))=i<<32; pthread_t t[2]; for(long k=0;k<2;k++) pthread_create(&t[k],0,writer,(void*)k);
           int bad=0; for(int f=0;f<6;f++){ pid_t c=fork(); if(!c){ for(size_t i=0;i<PAGES;i++) if(*(unsigned long*)(p+i*4096+8*(i%2))>>32!=i) _exit(1); _exit(0); } if(status_of(c)) bad=4; }
           over=1; for(int k=0;k<2;k++) pthread_join(t[k],0);
           for(size_t i=0;i<PAGES;i++) if(*(unsigned long*)(p+i*4096+8*(i%2))!=((i<<32)|last[i%2][i])) bad=5; return bad; }",
    );
}

/// What MREMAP_DONTUNMAP leaves mapped was nobody's: its next touch waited for ever.
#[test]
fn memory_that_mremap_leaves_behind_hangs_its_reader() {
    check(
        "dontunmap",
        "int main(){ size_t n=16*MIB; char*p=area(n); for(int r=0;r<4;r++){ fill(p,n,r); press(); char*q=mremap(p,n,n,MREMAP_MAYMOVE|4); if(q==MAP_FAILED) return 2; if(wrong(q,n,r)) return 3; for(size_t i=0;i<n;i+=4096) if(p[i]) return 4; fill(p,n,r+9); press(); if(wrong(p,n,r+9)||wrong(q,n,r)) return 5; munmap(q,n); } return 0; }",
    );
}

/// A run of pages that crosses from one mapping into the next is refused by the kernel as a whole.
#[test]
fn runs_across_mappings_lose_their_ends() {
    check(
        "pieces",
        "int main(){ size_t n=32*MIB; char*p=area(n); fill(p,n,1); for(size_t i=0;i<n;i+=32*4096) if(mprotect(p+i,7*4096,PROT_READ)) return 2; for(int r=0;r<3;r++){ press(); if(wrong(p,n,1)) return 3; }
           for(size_t i=0;i<n;i+=32*4096) if(mprotect(p+i,7*4096,PROT_READ|PROT_WRITE)) return 4; fill(p,n,2); press(); return wrong(p,n,2)!=0; }",
    );
}

/// With an argument the program expects to be managed.
fn check_grants(name: &str, body: &str) {
    let program = compile(name, body, &[]);
    let plain = std::process::Command::new(&program).output().unwrap();
    assert!(plain.status.success(), "plainly: {}", text(&plain));
    let run = within_by(96, &["huge"], &[&program, "managed"]).output().unwrap();
    assert!(run.status.success(), "under vswap: {}", text(&run));
}

#[test]
fn what_fits_is_left_to_the_kernel_until_room_is_short() {
    check_grants(
        "grants",
        "int main(int n,char**v){ int m=n>1; char*a=area(8*MIB); char*p=area(24*MIB); fill(p,24*MIB,1); char*q=area(16*MIB); fill(q,8*MIB,2);
          if(m&&(registered(p)!=0||registered(q)!=0)) return 2; for(int k=0;m&&k<8&&!huge(q);k++) { q=area(16*MIB); fill(q,8*MIB,2); munmap(q,16*MIB); q=area(16*MIB); fill(q,8*MIB,2); } if(m&&!huge(q)) return 6;
          fill(a,8*MIB,3); press(); if(m&&(registered(p)!=1||registered(q)!=1)) return 3;
          if(wrong(p,24*MIB,1)||wrong(q,8*MIB,2)||wrong(a,8*MIB,3)) return 4; for(size_t i=8*MIB;i<16*MIB;i+=512) if(q[i]) return 5; return 0; }",
    );
}

/// The kernel tells nothing of a range that it was left: pages that have moved, gone or been replaced are not where they were.
#[test]
fn a_grant_that_moved_or_went_is_taken_for_what_was_granted() {
    check_grants(
        "grants_move",
        "int main(int n,char**v){ int m=n>1; char*p=area(20*MIB); fill(p,20*MIB,1); char*q=area(8*MIB); fill(q,8*MIB,2);
          char*block=area(4096); q=mremap(q,8*MIB,16*MIB,MREMAP_MAYMOVE); if(q==MAP_FAILED||wrong(q,8*MIB,2)) return 2; if(m&&registered(q)!=0) return 3; fill(q,16*MIB,4);
          munmap(p,4*MIB); if(mmap(p+4*MIB,2*MIB,3,MAP_SHARED|MAP_ANONYMOUS|MAP_FIXED,-1,0)!=p+4*MIB) return 4; fill(p+4*MIB,2*MIB,5);
          madvise(p+6*MIB,2*MIB,MADV_DONTNEED); mprotect(p+8*MIB,MIB,PROT_READ); int f=open(v[0],O_RDONLY); char*e=mmap(p+9*MIB,4096,PROT_READ,MAP_PRIVATE|MAP_FIXED,f,0); if(e!=p+9*MIB||e[1]!='E') return 5;
          char*h=sbrk(6*MIB); fill(h,6*MIB,6); sbrk(-(long)(3*MIB)); if(sbrk(0)!=h+3*MIB) return 6; char*h2=sbrk(4*MIB); if(h2!=h+3*MIB) return 7; for(size_t i=0;i<4*MIB;i+=4096) if(h2[i]) return 8; fill(h2,4*MIB,7);
          press(); press(); if(m&&(registered(q)!=1||registered(p+16*MIB)!=1||registered(h)!=1||registered(p+4*MIB)!=0||registered(e)!=0)) return 9;
          if(wrong(q,16*MIB,4)||wrong(p+4*MIB,2*MIB,5)||wrong(h,3*MIB,6)||wrong(h2,4*MIB,7)) return 10; for(size_t i=0;i<2*MIB;i+=512) if(p[6*MIB+i]) return 11;
          for(size_t i=8*MIB/8;i<20*MIB/8;i+=64) if((char*)((unsigned long*)p+i)<e||(char*)((unsigned long*)p+i)>=e+4096) if(((unsigned long*)p)[i]!=want(i,1)) return 12; return e[1]!='E'; }",
    );
}

#[test]
fn a_child_forked_while_its_parent_has_grants_is_made_from_what_is_not_known() {
    check_grants(
        "grants_fork",
        "int main(int n,char**v){ char*p=area(40*MIB); fill(p,20*MIB,1); if(n>1&&registered(p)!=0) return 2;
          for(int k=0;k<4;k++){ pid_t c=fork(); if(!c){ if(wrong(p,20*MIB,1)) _exit(1); for(size_t i=20*MIB;i<40*MIB;i+=512) if(p[i]) _exit(2); fill(p,40*MIB,9); press(); _exit(wrong(p,40*MIB,9)!=0);} 
            char*q=area(2*MIB); fill(q,2*MIB,k); int st=status_of(c); if(st||wrong(q,2*MIB,k)) return 3; } 
          press(); return wrong(p,20*MIB,1)!=0; }",
    );
}

#[test]
fn an_mremap_that_the_kernel_refuses_ends_the_run() {
    check_grants(
        "grants_mremap",
        "int main(int n,char**v){ char*p=area(24*MIB); fill(p,24*MIB,1); if(n>1&&registered(p)!=0) return 2;
          if(mremap((void*)-4096ul,8192,16384,MREMAP_MAYMOVE)!=MAP_FAILED) return 3; if(mremap(p+1,8192,16384,MREMAP_MAYMOVE)!=MAP_FAILED) return 4;
          if(mremap(p,-4096ul,8192,MREMAP_MAYMOVE)!=MAP_FAILED) return 5; if(mremap(p,8192,-8192ul,MREMAP_MAYMOVE)!=MAP_FAILED) return 6;
          if(brk((void*)-4096ul)==0) return 8; char*h=sbrk(2*MIB); if(h==(void*)-1) return 9; fill(h,2*MIB,2);
          press(); return wrong(p,24*MIB,1)||wrong(h,2*MIB,2)?7:0; }",
    );
}

/// What `MREMAP_DONTUNMAP` leaves behind is registered as before: granted, its faults would be nobody's.
#[test]
fn memory_that_mremap_leaves_behind_while_there_is_room_hangs_its_reader() {
    check_grants(
        "grants_dontunmap",
        "int main(int n,char**v){ alarm(30); area(24*MIB); char*p=mmap(0,8*MIB,3,MAP_PRIVATE|MAP_ANONYMOUS|MAP_NORESERVE,-1,0); fill(p,8*MIB,1);
          if(n>1&&registered(p)!=1) return 2; char*q=mremap(p,8*MIB,8*MIB,MREMAP_MAYMOVE|4,0); if(q==MAP_FAILED||wrong(q,8*MIB,1)) return 3;
          for(size_t i=0;i<8*MIB;i+=4096) if(p[i]) return 4; fill(p,8*MIB,2); press(); return wrong(p,8*MIB,2)||wrong(q,8*MIB,1); }",
    );
}

/// The page map shows a page that a discard takes a moment later; taken for resident, its next reader got SIGBUS.
#[test]
fn a_discard_while_grants_are_called_in_is_overlooked() {
    check_grants(
        "grants_discard",
        "static char*p; static volatile int stop; static size_t n=40*MIB; static void*t(void*x){ unsigned r=(unsigned long)x; while(!stop){ r=r*1664525+1013904223; size_t at=(r>>8)%(n/4096-64)*4096; 
            char*q=p+at; if((r>>3)&1){ madvise(q,64*4096,MADV_DONTNEED); } else for(int i=0;i<64;i++) { volatile char*c=q+i*4096; char v=*c; if(v&&v!=7) _exit(9); *c=7; } } return 0; }
          int main(int c,char**v){ for(int round=0;round<6;round++){ stop=0; p=area(n); memset(p,7,n); pthread_t a,b; pthread_create(&a,0,t,(void*)(1ul+round)); pthread_create(&b,0,t,(void*)(99ul+round));
            char*m=area(64*MIB); for(size_t i=0;i<64*MIB;i+=4096) m[i]=1; stop=1; pthread_join(a,0); pthread_join(b,0);
            for(size_t i=0;i<n;i+=4096) if(p[i]!=0&&p[i]!=7) return 2; munmap(m,64*MIB); munmap(p,n); } return 0; }",
    );
}

/// A discard is told before it is done: what another thread brought in between went with it, was taken for lost, and its next reader got SIGBUS; or it was
/// looked for where it had been moved out to before, and came back as it was before the discard. A thread that changes the protection of a large file keeps the discard waiting there.
#[test]
fn a_page_that_came_before_a_discard_was_done_is_taken_for_lost_or_comes_back_as_it_was() {
    check(
        "discard_gap",
        "static char*p,*file,*more; static volatile int over; enum{PAGES=512}; static unsigned next(unsigned*r){ return *r=*r*1664525+1013904223; }
         static void*touch(void*x){ unsigned r=1; while(!over){ volatile char*c=p+(next(&r)>>8)%PAGES*4096; (void)*c; } return 0; }
         static void*lock(void*x){ while(!over){ mprotect(file,128*MIB,PROT_NONE); mprotect(file,128*MIB,PROT_READ); usleep(100); } return 0; }
         static void*press_on(void*x){ unsigned r=7; while(!over){ more[(next(&r)>>8)%8192*4096]++; } return 0; }
         int main(){ char name[]=\"/var/tmp/vswap-test-XXXXXX\"; int f=mkstemp(name); unlink(name); if(f<0||ftruncate(f,128*MIB)) return 2;
           file=mmap(0,128*MIB,PROT_READ,MAP_SHARED|MAP_POPULATE,f,0); if(file==MAP_FAILED) return 3;
           p=area(4*MIB); more=area(32*MIB); fill(p,4*MIB,1); press(); pthread_t t[3]; pthread_create(t,0,touch,0); pthread_create(t+1,0,lock,0); pthread_create(t+2,0,press_on,0);
           unsigned r=3; int n=0; for(time_t end=time(0)+8; time(0)<end; n++){ for(int i=0;i<PAGES;i++) p[i*4096]=1+n%100; usleep((next(&r)>>8)%2000); madvise(p,PAGES*4096,MADV_DONTNEED);
             for(int i=0;i<PAGES;i++) if(*(volatile char*)(p+i*4096)) { fprintf(stderr,\"round %d page %d has %d\\n\",n,i,p[i*4096]); return 4; } }
           over=1; for(int i=0;i<3;i++) pthread_join(t[i],0); fprintf(stderr,\"%d rounds\\n\",n); fill(p,4*MIB,2); press(); return wrong(p,4*MIB,2)?5:0; }",
    );
}

/// Threads that discard parts of `p` all the time, on a CPU that another takes away from them for 30 ms at a time: as a rule some discard is in the middle then, read
/// by the handlers and not done. Pages around the parts stay, so that an eviction takes along what is between.
const DISCARDS: &str = "#include <sched.h>
static char *p, *more; static volatile int over, begun; enum { PAGES = 512, EVERY = 32, FROM = 8, COUNT = 16, DROPPERS = PAGES / EVERY };
static pthread_t droppers[DROPPERS], hogs;
static void on(int cpu) { cpu_set_t set; CPU_ZERO(&set); CPU_SET(cpu, &set); sched_setaffinity(0, sizeof set, &set); }
static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec + t.tv_nsec / 1e9; }
static void *hog(void *x) {
  struct sched_param first = {1}; on(1); sched_setscheduler(0, SCHED_FIFO, &first);
  while (!over) { begun++; for (double until = now() + 0.03; now() < until;); usleep(2000); }
  return 0;
}
static void *drop(void *x) { on(1); while (!over) { char *c = x; *c = 77; madvise(c, COUNT * 4096, MADV_DONTNEED); } return 0; }
static void begin(void) {
  on(0); p = area(4 * MIB); p += -(unsigned long)p % (2 * MIB); more = area(32 * MIB); press();
  for (int i = 0; i < PAGES; i++) p[i * 4096] = 77;
  for (int i = 0; i < DROPPERS; i++) pthread_create(droppers + i, 0, drop, p + (i * EVERY + FROM) * 4096);
  pthread_create(&hogs, 0, hog, 0);
}
static void end(void) { over = 1; for (int i = 0; i < DROPPERS; i++) pthread_join(droppers[i], 0); pthread_join(hogs, 0); }
static void in_the_middle(void) { int was = begun; while (begun == was); usleep(2000); }
/* Whether any discarded page is there all the same. */
static int there(char *p) {
  static unsigned long e[PAGES]; int f = open(\"/proc/self/pagemap\", O_RDONLY), n = 0;
  if (f < 0 || pread(f, e, sizeof e, (unsigned long)p / 4096 * 8) != sizeof e) _exit(103);
  for (int i = 0; i < PAGES; i++) n += i % EVERY >= FROM && i % EVERY < FROM + COUNT && e[i] >> 63;
  close(f); return n;
}
/* 0 if what is written to each page at p is there after most of the memory was moved out. */
static int loses(char *p) {
  for (int i = 0; i < PAGES; i++) { if (p[i * 4096] != 77 && p[i * 4096]) return 101; p[i * 4096 + 8] = 1 + i % 99; }
  fill(more, 28 * MIB, 1);
  for (int i = 0; i < PAGES; i++) if (p[i * 4096 + 8] != 1 + i % 99) return 102;
  return 0;
}";

/// A child of a fork in the middle of another thread's discard has pages that the parent is known to have dropped. They were
/// taken for absent: moved out along with their neighbours, what the child had written there was looked for nowhere.
#[test]
fn a_fork_in_the_middle_of_a_discard_loses_what_the_child_writes() {
    let body = "int main(){ begin(); int n=0; for(time_t until=time(0)+8; time(0)<until; n++){ in_the_middle();
         pid_t c=fork(); if(c<0) continue; if(!c) _exit(there(p)?loses(p):0);
         int s; if(waitpid(c,&s,0)!=c||!WIFEXITED(s)) return 4; if(WEXITSTATUS(s)){ fprintf(stderr,\"round %d: %d\\n\",n,WEXITSTATUS(s)); return 5; } }
       end(); fprintf(stderr,\"%d rounds\\n\",n); return 0; }";
    check("discard_fork", &format!("{DISCARDS}\n{body}"));
}

/// What another thread's discard has not come to yet moves along with its mapping, and stays. It was taken for absent at the new address.
#[test]
fn an_mremap_in_the_middle_of_a_discard_loses_what_is_written_after_it() {
    let body = "int main(){ begin(); char*q=area(4*MIB); q+=-(unsigned long)q%(2*MIB); int n=0,met=0; for(time_t until=time(0)+8; time(0)<until; n++){ in_the_middle();
         if(mremap(p,2*MIB,2*MIB,MREMAP_MAYMOVE|MREMAP_FIXED|4/*DONTUNMAP*/,q)!=q) return 4; for(int i=0;i<PAGES;i++) if(i%EVERY<FROM||i%EVERY>=FROM+COUNT) p[i*4096]=77;
         if(there(q)){ met++; int bad=loses(q); if(bad){ fprintf(stderr,\"round %d: %d\\n\",n,bad); return 5; } } }
       end(); fprintf(stderr,\"%d rounds, %d\\n\",n,met); return 0; }";
    check("discard_mremap", &format!("{DISCARDS}\n{body}"));
}

/// The stub is a thread of the program: stopped, swapped in late, or busy with an eviction. Faults are answered without it.
#[test]
fn a_fault_waits_for_a_stub_that_stands_still() {
    use std::io::{BufRead, BufReader, Write};
    use std::process::Stdio;
    let body = "int main(){ size_t n=48*MIB; char*p=area(n); fill(p,n,1); press(); printf(\"%d\\n\",getpid()); fflush(stdout);
      char c; if(read(0,&c,1)!=1) return 2; alarm(30);
      for(size_t k=0;k<40;k++){ size_t i=(k*2731%12000)*512; if(((unsigned long*)p)[i]!=want(i,1)) return 3; }
      puts(\"read\"); fflush(stdout); if(read(0,&c,1)!=1) return 4; return wrong(p,n,1)?5:7; }";
    let program = compile("stub_held", body, &[]);
    let mut run =
        within(24, &[&program]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("starts");
    let (mut to, mut from) = (run.stdin.take().unwrap(), BufReader::new(run.stdout.take().unwrap()));
    let mut line = || {
        let mut line = String::new();
        from.read_line(&mut line).unwrap();
        line.trim().to_owned()
    };
    let pid: i32 = line().parse().unwrap();
    let is_stub = |tid: &i32| {
        std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/comm"))
            .is_ok_and(|name| name == "vswap-stub\n")
    };
    let stub = vswap_sys::process::threads(pid).unwrap().into_iter().find(is_stub).expect("it is managed");
    let mut held = vswap_sys::ptrace::Tracee::seize(stub, 0).unwrap();
    held.interrupt().unwrap();
    held.wait().unwrap();
    to.write_all(b"1").unwrap();
    assert_eq!(line(), "read");
    held.detach(0).unwrap();
    to.write_all(b"2").unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(7));
}

/// The kernel copies shared pages behind the pager's back: a family that wrote to all that it shared was twice the limit.
#[test]
fn a_fork_lets_both_owners_copy_all_that_they_share_at_once() {
    let body = "int main(int c,char**v){ size_t n=72*MIB; char*p=area(n); fill(p,n,1); int*up=mmap(0,4096,3,MAP_SHARED|MAP_ANONYMOUS,-1,0); pid_t k=fork();
          long most=0; for(size_t at=0;at<n;at+=MIB){ fill(p+at,MIB,k?2:3); if(k){ long now=pss(getpid())+pss(k); if(now>most) most=now; } }
          int bad=0; for(size_t at=0;at<n;at+=MIB) bad+=wrong(p+at,MIB,k?2:3); if(!k) _exit(bad!=0); if(status_of(k)) bad++; if(c>1&&most>(96*105/100+8)*1024){ printf(\"%ld KiB\\n\",most); return 3; } return bad!=0; }";
    let program = compile("cow", body, &[]);
    let run = within_by(96, &[], &[&program, "managed"]).output().unwrap();
    assert!(run.status.success(), "{}", text(&run));
    // A process that ends while its pages are written down is no reason for words.
    assert!(run.stderr.is_empty(), "{}", text(&run));
}

/// What a stopped process shares cannot leave its memory, so to move it out of its relatives only takes more room. They were
/// moved out of first, the pool grew with them, and nothing wrote it down since much was charged: 311 MiB of 176.
#[test]
fn a_stopped_relative_keeps_what_it_shares_and_the_others_move_out_their_own() {
    let body = "static int noise(char*p,size_t n,unsigned long x,int check){ int bad=0; for(unsigned long*w=(void*)p;(char*)w<p+n;w++){ x=x*6364136223846793005ul+1442695040888963407ul;
            if(check) bad+=*w!=x; else *w=x; } return bad; }
         int main(int c,char**v){ size_t n=80*MIB; char*p=area(n); noise(p,n,1,0); pid_t k=fork(); if(!k){ raise(SIGSTOP); _exit(noise(p,n,1,1)!=0); }
          int st; waitpid(k,&st,WUNTRACED); long most=0;
          for(int round=2;round<4;round++) for(size_t at=0;at<n;at+=MIB){ noise(p+at,MIB,at+round,0); long now=pss(getpid())+pss(k); if(now>most) most=now; }
          int bad=0; for(size_t at=0;at<n;at+=MIB) bad+=noise(p+at,MIB,at+3,1); kill(k,SIGCONT); if(!WIFSTOPPED(st)) return 2; if(bad) return 3; if(status_of(k)) return 4;
          if(c>1&&most>(96*105/100+8)*1024){ printf(\"%ld KiB\\n\",most); return 5; } return 0; }";
    let program = compile("stopped_cow", body, &[]);
    let run = within_by(96, &["disk"], &[&program, "managed"]).output().unwrap();
    assert!(run.status.success(), "{}", text(&run));
    assert!(run.stderr.is_empty(), "{}", text(&run));
}

/// Small processes were counted ten times a second: a few that start at once took the tree far beyond its limit meanwhile.
#[test]
fn small_processes_that_start_at_once_are_counted_as_they_grow() {
    let body = "#include <spawn.h>\nextern char**environ;
         int main(int c,char**v){ if(c>2){ for(int i=0;i<100;i++) memset(malloc(100<<10),i+1,100<<10); char x; return read(0,&x,1)!=0; }
          char*p=area(72*MIB); fill(p,72*MIB,1); int to[2]; pipe(to); fcntl(to[1],F_SETFD,1); pid_t k[4]; char*args[]={v[0],\"a\",\"child\",0}; posix_spawn_file_actions_t a; posix_spawn_file_actions_init(&a); posix_spawn_file_actions_adddup2(&a,to[0],0);
          for(int i=0;i<4;i++) if(posix_spawn(&k[i],v[0],&a,0,args,environ)) return 2;
          long most=0; for(int i=0;i<100;i++){ long now=pss(getpid()); for(int j=0;j<4;j++) now+=pss(k[j]); if(now>most) most=now; usleep(2000); }
          close(to[1]); for(int j=0;j<4;j++) if(status_of(k[j])) return 3; if(wrong(p,72*MIB,1)) return 4;
          if(c>1&&most>(64*105/100+8)*1024){ printf(\"%ld KiB\\n\",most); return 5; } return 0; }";
    let program = compile("many_small", body, &[]);
    let run = within_by(64, &[], &[&program, "managed"]).output().unwrap();
    assert!(run.status.success(), "{}", text(&run));
}

/// A stub stops with its program, so nothing could be moved out of one that was stopped, however long, and others had what was left.
/// How soon it is run on depends on who else wants the CPU: the other one asks for more until it is.
#[test]
fn a_stopped_program_makes_room_for_others() {
    let body = "int main(int c,char**v){ size_t n=48*MIB; pid_t k=fork(); if(!k){ prctl(1,SIGKILL); char*p=area(n); fill(p,n,7); raise(SIGSTOP); _exit(wrong(p,n,7)!=0); }
          int st; waitpid(k,&st,WUNTRACED); long most=0, left=pss(k); char*p=area(n);
          time_t end=time(0)+20; do for(size_t at=0;at<n;at+=MIB){ fill(p+at,MIB,3); long now=pss(getpid())+pss(k); if(now>most) most=now; } while(c>1&&left-pss(k)<16*1024&&time(0)<end);
          int bad=0; for(size_t at=0;at<n;at+=MIB) bad+=wrong(p+at,MIB,3); left-=pss(k); kill(k,SIGCONT); if(!WIFSTOPPED(st)) return 2; if(bad) return 3; if(status_of(k)) return 4;
          if(c>1&&(most>(64*105/100+8)*1024||left<16*1024)){ printf(\"%ld KiB, %ld moved out\\n\",most,left); return 5; } return 0; }";
    let program = compile("stopped_yields", body, &[]);
    let run = within_by(64, &[], &[&program, "managed"]).output().unwrap();
    assert!(run.status.success(), "{}", text(&run));
    assert!(run.stderr.is_empty(), "{}", text(&run));
}

/// Threads of a stopped program waited for the one whose call its stub was to make, each with a thread that reads notifications,
/// until nobody read what the others in the tree called.
#[test]
fn threads_of_a_stopped_program_hold_up_its_relatives() {
    let body = "static void*busy(void*x){ for(;;){ char*p=mmap(0,MIB,3,MAP_PRIVATE|MAP_ANONYMOUS,-1,0); if(p==MAP_FAILED) _exit(9); p[0]=1; munmap(p,MIB); } return x; }
         int main(){ char*p=area(24*MIB); fill(p,24*MIB,1); int up[2]; if(pipe(up)) return 2;
          pid_t k=fork(); if(!k){ prctl(1,SIGKILL); pthread_t t; for(int i=0;i<12;i++) if(pthread_create(&t,0,busy,0)) _exit(8); usleep(50000); write(up[1],up,1); for(;;) pause(); }
          char c; alarm(30); close(up[1]); if(read(up[0],&c,1)!=1) return 3;
          for(int round=0;round<5;round++){ kill(k,SIGSTOP); int st; waitpid(k,&st,WUNTRACED); usleep(20000);
            for(int i=0;i<20;i++){ char*q=mmap(0,MIB,3,MAP_PRIVATE|MAP_ANONYMOUS,-1,0); if(q==MAP_FAILED) return 4; q[5]=1; munmap(q,MIB); }
            pid_t g=fork(); if(!g) _exit(0); if(status_of(g)) return 5; kill(k,SIGCONT); usleep(20000); }
          kill(k,SIGKILL); status_of(k); return wrong(p,24*MIB,1)!=0; }";
    let program = compile("stopped_threads", body, &["-pthread"]);
    let run = within_by(64, &[], &[&program]).output().unwrap();
    assert!(run.status.success(), "{}", text(&run));
}

/// A word that the kernel clears at a thread's end lay in a page that a read ahead had brought in, clean and so
/// write-protected: the kernel raises no fault for a thread that ends, and whoever joined it waited for ever.
#[test]
fn a_clear_child_tid_in_a_clean_page_leaves_a_join_hanging() {
    check(
        "clean_tid",
        "static int t(void*x){ while(!*(volatile int*)x) usleep(1000); syscall(SYS_exit,0); return 0; }
         int main(){ volatile int*go=mmap(0,4096,3,MAP_SHARED|MAP_ANONYMOUS,-1,0); char*st=area(65536), *p=area(512*4096); fill(p,512*4096,1); press();
          for(int i=0;i<300;i++) if(*(unsigned long*)(p+i*4096)!=want(i*512,1)) return 2; volatile int*word=(int*)(p+301*4096);
          clone(t,st+65536,CLONE_VM|CLONE_FS|CLONE_FILES|CLONE_SIGHAND|CLONE_THREAD|CLONE_SYSVSEM|CLONE_CHILD_CLEARTID,(void*)go,0,0,word);
          *go=1; for(int i=0;i<2000&&*word;i++) usleep(1000); return *word!=0; }",
    );
}

/// What the kernel writes in the parent while it forks must be writable then: the descriptor's number for the parent was not,
/// so the fork hung until the space thawed under it, and the child lost pages.
#[test]
fn a_fork_that_gives_a_descriptor_waits_for_its_own_page() {
    check(
        "pidfd_fork",
        "struct args{ unsigned long flags,pidfd,child_tid,parent_tid,exit_signal,stack,stack_size,tls; };
         int main(){ char*p=area(48*MIB); fill(p,48*MIB,1); press(); int*fd=(int*)area(4096); *fd=-1; if(wrong(p,16*MIB,1)) return 2; struct timespec a,b; clock_gettime(CLOCK_MONOTONIC,&a);
          for(int i=0;i<5;i++){ *fd=-1; struct args x={0x1000,(unsigned long)fd,0,0,SIGCHLD}; long k=syscall(435,&x,sizeof x); if(!k) _exit(wrong(p,48*MIB,1)!=0); if(k<0) return 3; if(*fd<0) return 4; close(*fd); if(status_of(k)) return 5; }
          return wrong(p,48*MIB,1)!=0; }",
    );
}

/// A robust mutex in a page that is shared since a fork, or is out: the kernel marks it at its owner's end, when it raises no faults.
#[test]
fn a_robust_mutex_in_a_protected_page_is_not_marked_when_its_thread_ends() {
    check(
        "robust_cow",
        "static pthread_mutex_t*mx,*my; static volatile int held,go; static void*t(void*x){ pthread_mutex_lock(mx); pthread_mutex_lock(my); held=1; while(!go) usleep(1000); return 0; }
         int main(){ mx=(void*)area(4096); my=(void*)area(4096); char*p=area(32*MIB); fill(p,32*MIB,1);
          pthread_mutexattr_t a; pthread_mutexattr_init(&a); pthread_mutexattr_setrobust(&a,1); pthread_mutex_init(mx,&a); pthread_mutex_init(my,&a);
          pthread_t h; pthread_create(&h,0,t,0); while(!held) usleep(1000); press(); *(volatile char*)mx;
          pid_t k=fork(); if(!k){ usleep(300000); _exit(0); } go=1; pthread_join(h,0); struct timespec ts; clock_gettime(CLOCK_REALTIME,&ts); ts.tv_sec+=5;
          if(pthread_mutex_timedlock(mx,&ts)!=EOWNERDEAD) return 2; if(pthread_mutex_timedlock(my,&ts)!=EOWNERDEAD) return 3; return status_of(k)!=0; }",
    );
}

/// A child that was killed while it was taken in stayed in the books: its share of the parent's pages was never given up, and
/// each of them was charged twice from then on.
#[test]
fn a_child_killed_while_it_is_taken_in_stays_charged() {
    let body = "int main(){ size_t n=64*MIB; char*p=area(n); fill(p,n,1); pid_t me=getpid(), killer=fork();
          if(!killer){ char name[64]; snprintf(name,64,\"/proc/%d/task/%d/children\",me,me); for(;;){ FILE*f=fopen(name,\"r\"); int k; while(f&&fscanf(f,\"%d\",&k)==1) if(k!=getpid()) { usleep(rand()%12000); kill(k,9); } if(f) fclose(f); } }
          for(int i=0;i<400;i++){ pid_t k=fork(); if(!k){ pause(); _exit(0); } if(k>0&&status_of(k)!=9) return 2; fill(p+(i%64)*MIB,MIB,i); }
          kill(killer,9); status_of(killer); for(int r=2;r<5;r++){ fill(p,n,r); if(wrong(p,n,r)) return 3; }
          /* There is room for all of it, so it stays. */
          struct rusage a,b; getrusage(RUSAGE_SELF,&a); if(wrong(p,n,4)) return 3; getrusage(RUSAGE_SELF,&b); return b.ru_minflt-a.ru_minflt>1000?4:0; }";
    let program = compile("killed_child", body, &[]);
    let run = within_by(84, &[], &[&program]).output().unwrap();
    assert!(run.status.success() && run.stderr.is_empty(), "{}", text(&run));
}

/// What a device had pinned before a fork it may write behind all protection: the parent's page, moved out after its child's, was not
/// to be taken for the same bytes.
#[test]
fn a_device_writes_after_a_fork_to_what_was_pinned_before() {
    let body = "#include <linux/io_uring.h>\n#include <sys/uio.h>\n
         static int sq, *sqt, *sqm, *sqa, *cqh, *cqm; static struct io_uring_sqe*e; static struct io_uring_cqe*cq;
         static void ring(void){ struct io_uring_params q={0}; sq=syscall(425,4,&q); if(sq<0) _exit(20); char*r=mmap(0,2*MIB,3,MAP_SHARED,sq,0);
          e=mmap(0,q.sq_entries*sizeof*e,3,MAP_SHARED|MAP_POPULATE,sq,IORING_OFF_SQES); sqt=(int*)(r+q.sq_off.tail); sqm=(int*)(r+q.sq_off.ring_mask); sqa=(int*)(r+q.sq_off.array);
          cqh=(int*)(r+q.cq_off.head); cqm=(int*)(r+q.cq_off.ring_mask); cq=(void*)(r+q.cq_off.cqes); }
         static int read_fixed(int fd,void*to,size_t n){ int t=*sqt, i=t&*sqm; memset(e+i,0,sizeof*e); e[i].opcode=IORING_OP_READ_FIXED; e[i].fd=fd; e[i].addr=(long)to; e[i].len=n; sqa[i]=i; __atomic_store_n(sqt,t+1,__ATOMIC_RELEASE);
          if(syscall(426,sq,1,1,1,0,0)!=1) _exit(21); int h=(*cqh)++; return cq[h&*cqm].res; }
         int main(){ size_t n=4*MIB; char*p=area(48*MIB); fill(p,48*MIB,1); ring(); struct iovec v={p,n}; if(syscall(427,sq,0,&v,1)) return 22;
          int go[2], fd=open(\"/dev/zero\",O_RDONLY); if(pipe(go)) return 2; pid_t k=fork(); if(!k){ char c; if(wrong(p,n,1)) _exit(2); press(); if(read(go[0],&c,1)!=1) _exit(3); _exit(wrong(p,48*MIB,1)!=0); }
          for(size_t at=0;at<n;at+=2*MIB) for(size_t got=0;got<MIB;){ int more=read_fixed(fd,p+at+got,MIB-got); if(more<=0) return 24; got+=more; } if(syscall(427,sq,1,0,0)) return 23;
          press(); int bad=0; for(size_t at=0;at<n;at+=2*MIB) for(size_t i=0;i<MIB;i++) bad+=p[at+i]!=0;
          if(write(go[1],go,1)!=1) return 4; if(status_of(k)) return 5; return bad!=0; }";
    check("pinned_fork", body);
}

/// The stub is a thread like the others: left as it was, it would be more than the program after a change of user.
#[test]
fn a_stub_stays_root_when_its_program_does_not() {
    check(
        "stub_follows",
        "#include <dirent.h>\nint main(){ char*p=area(48*MIB); fill(p,48*MIB,1); press(); if(setgid(65534)||setuid(65534)) return 2; if(wrong(p,48*MIB,1)) return 3; press(); if(wrong(p,48*MIB,1)) return 4;
          DIR*d=opendir(\"/proc/self/task\"); struct dirent*t; int bad=0; while((t=readdir(d))) if(t->d_name[0]!='.'){ char n[300], line[256]; snprintf(n,300,\"/proc/self/task/%s/status\",t->d_name); FILE*f=fopen(n,\"r\"); int a,b,c,e;
            while(f&&fgets(line,256,f)) if(sscanf(line,\"Uid: %d %d %d %d\",&a,&b,&c,&e)==4||sscanf(line,\"Gid: %d %d %d %d\",&a,&b,&c,&e)==4) bad+=a!=65534||b!=65534||c!=65534||e!=65534; if(f) fclose(f); }
          return bad; }",
    );
}

/// Pages go oldest first, whoever has them: one that rests gives its own to one that grows.
#[test]
fn an_idle_process_keeps_its_pages_while_another_grows() {
    let program = compile(
        "idle",
        "int main(int n,char**v){ int ready[2],go[2]; pipe(ready); pipe(go); char c=1; pid_t k=fork();
           if(!k){ char*p=area(20*MIB); fill(p,20*MIB,1); write(ready[1],&c,1); read(go[0],&c,1); _exit(wrong(p,20*MIB,1)!=0); }
           read(ready[0],&c,1); long before=pss(k); char*p=area(20*MIB); for(int r=0;r<12;r++){ fill(p,20*MIB,r); if(wrong(p,20*MIB,r)) return 2; }
           long after=pss(k), own=pss(getpid()); fprintf(stderr,\"idle: %ld KiB, then %ld; the other: %ld\\n\",before,after,own);
           if(n>1&&(before<12<<10||after>6<<10||own<14<<10)) return 3; write(go[1],&c,1); return status_of(k)!=0; }",
        &[],
    );
    let run = within(24, &[&program, "within"]).output().unwrap();
    assert!(run.status.success(), "{}", text(&run));
}
