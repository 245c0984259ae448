//! A stub that was sent away so that its program is of one thread: what is out stays the program's.

use crate::programs::check;

#[test]
fn a_user_namespace_costs_a_program_its_evicted_pages() {
    check(
        "unshare_out",
        "int main(){ char*p=area(48*MIB); fill(p,48*MIB,1); press(); int r=unshare(CLONE_NEWUSER); printf(\"%d %d\\n\",r,r?errno:0); if(wrong(p,48*MIB,1)) return 2;
          char*q=area(16*MIB); fill(q,16*MIB,2); press(); fill(p,8*MIB,3); if(wrong(q,16*MIB,2)||wrong(p,8*MIB,3)) return 3; 
          for(size_t i=8*MIB/8;i<48*MIB/8;i+=64) if(((unsigned long*)p)[i]!=want(i,1)) return 4; return 0; }",
    );
}

#[test]
fn a_namespace_of_another_process_cannot_be_entered_beside_the_stub() {
    check(
        "setns_out",
        "int main(){ int up[2], over[2]; if(pipe(up)||pipe(over)) return 9; pid_t k=fork(); if(!k){ char c=unshare(CLONE_NEWUSER)?'n':'y'; write(up[1],&c,1); close(over[1]); read(over[0],&c,1); _exit(0); }
          close(over[0]); char c, name[64]; if(read(up[0],&c,1)!=1) return 8; snprintf(name,64,\"/proc/%d/ns/user\",k); char*p=area(48*MIB); fill(p,48*MIB,1); press();
          int fd=open(name,O_RDONLY), r=setns(fd,0); printf(\"%c %d %d\\n\",c,r,r?errno:0); if(wrong(p,48*MIB,1)) return 2; press(); close(over[1]); if(status_of(k)) return 3; return wrong(p,48*MIB,1)!=0; }",
    );
}

#[test]
fn a_fork_after_the_stub_has_gone_gives_the_child_zeroes() {
    check(
        "unshare_fork",
        "int main(){ char*p=area(48*MIB); int*word=(int*)(p+24*MIB); fill(p,48*MIB,1); word[4]=word[6]=77; press(); if(unshare(CLONE_NEWUSER)) return 0;
          long k=syscall(SYS_clone,CLONE_PARENT_SETTID|SIGCHLD,0,word+5,0,0); if(!k) _exit(wrong(p,48*MIB,1)!=0); if(k<0||status_of(k)) return 2;
          if(word[5]!=k||word[4]!=77||word[6]!=77) return 3;
          k=fork(); if(!k){ fill(p,16*MIB,2); press(); _exit(wrong(p,16*MIB,2)!=0); } if(k<0||status_of(k)) return 4; return wrong(p,48*MIB,1)!=0; }",
    );
}

/// Where a fork cannot be followed, what is out is brought in first.
#[test]
fn an_untraced_fork_after_the_stub_has_gone_gives_the_child_zeroes() {
    check(
        "unshare_untraced",
        "int main(){ char*p=area(48*MIB); fill(p,48*MIB,1); press(); if(unshare(CLONE_NEWUSER)) return 0;
          long k=syscall(SYS_clone,CLONE_UNTRACED|SIGCHLD,0,0,0,0); if(!k) _exit(wrong(p,48*MIB,1)!=0); if(k<0||status_of(k)) return 2; return wrong(p,48*MIB,1)!=0; }",
    );
}

/// The kernel clears the word of a thread that ends without raising a fault.
#[test]
fn an_evicted_clear_child_tid_leaves_a_join_hanging_after_the_stub_has_gone() {
    check(
        "unshare_tid",
        "static int t(void*x){ while(!*(volatile int*)x) usleep(1000); syscall(SYS_exit,0); return 0; }
         int main(){ volatile int*go=mmap(0,4096,3,MAP_SHARED|MAP_ANONYMOUS,-1,0); char*st=area(65536); char*p=area(48*MIB); int*word=(int*)(p+24*MIB+16); fill(p,48*MIB,1); *word=77; press(); if(unshare(CLONE_NEWUSER)) return 0;
          int k=clone(t,st+65536,CLONE_VM|CLONE_FS|CLONE_FILES|CLONE_SIGHAND|CLONE_THREAD|CLONE_SYSVSEM|CLONE_CHILD_CLEARTID,(void*)go,0,0,word); if(k<0) return 2;
          *go=1; while(!syscall(SYS_tgkill,getpid(),k,0)) usleep(1000); return *word!=0||wrong(p,48*MIB,1); }",
    );
}
