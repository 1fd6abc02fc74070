//! Seccomp: which system calls the server may make. Others fail with EPERM.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use libc::c_long;
use seccompiler::SeccompCmpArgLen::{Dword, Qword};
use seccompiler::SeccompCmpOp::{Eq, MaskedEq};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
    apply_filter_all_threads,
};

use super::Allowed;

/// Whatever their arguments are.
const ALWAYS: &[c_long] = &[
    // files that are open, and those below the dump directory (landlock says which)
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_preadv2,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_pwritev2,
    libc::SYS_lseek,
    libc::SYS_close,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_sync_file_range,
    libc::SYS_fadvise64,
    libc::SYS_fallocate,
    libc::SYS_ftruncate,
    libc::SYS_copy_file_range,
    libc::SYS_fcntl,
    libc::SYS_flock,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_newfstatat,
    libc::SYS_fstat,
    libc::SYS_statx,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fchmod,
    libc::SYS_getdents64,
    libc::SYS_readlinkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_symlinkat,
    libc::SYS_linkat,
    libc::SYS_unlinkat,
    libc::SYS_mkdirat,
    libc::SYS_getcwd,
    libc::SYS_pipe2,
    // sockets
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_accept4,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_setsockopt,
    libc::SYS_getsockopt,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_recvmmsg,
    libc::SYS_shutdown,
    // waiting
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_futex,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_wait4,
    libc::SYS_waitid,
    // memory
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    // threads and the process itself
    libc::SYS_rseq,
    libc::SYS_set_robust_list,
    libc::SYS_get_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_setpriority,
    libc::SYS_ioprio_set,
    libc::SYS_prctl,
    libc::SYS_tgkill,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_restart_syscall,
    libc::SYS_sigaltstack,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getppid,
    libc::SYS_getrandom,
    libc::SYS_uname,
    libc::SYS_sysinfo,
    libc::SYS_prlimit64,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_gettimeofday,
];

/// The same under the names that only this architecture has.
#[cfg(target_arch = "x86_64")]
const OLD: &[c_long] = &[
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_rename,
    libc::SYS_unlink,
    libc::SYS_symlink,
    libc::SYS_mkdir,
    libc::SYS_rmdir,
    libc::SYS_dup2,
    libc::SYS_pipe,
    libc::SYS_poll,
    libc::SYS_select,
    libc::SYS_epoll_wait,
    libc::SYS_time,
    libc::SYS_getrlimit,
];
#[cfg(not(target_arch = "x86_64"))]
const OLD: &[c_long] = &[];

type Rules = BTreeMap<c_long, Vec<SeccompRule>>;

pub(super) fn restrict(allowed: &Allowed<'_>) -> Result<String> {
    let arch: TargetArch = std::env::consts::ARCH
        .try_into()
        .with_context(|| format!("no filter for {}", std::env::consts::ARCH))?;
    let mut rules: Rules = ALWAYS.iter().chain(OLD).map(|call| (*call, Vec::new())).collect();
    rules.extend(conditional(allowed)?);
    let eperm = SeccompAction::Errno(libc::EPERM as u32);
    let list: BpfProgram =
        SeccompFilter::new(rules, eperm, SeccompAction::Allow, arch)?.try_into()?;
    // Its arguments are in memory, where no filter sees them. The C library
    // goes back to `clone`, which the list allows for threads only.
    let clone3 = Rules::from([(libc::SYS_clone3, Vec::new())]);
    let enosys = SeccompAction::Errno(libc::ENOSYS as u32);
    let no_clone3: BpfProgram =
        SeccompFilter::new(clone3, SeccompAction::Allow, enosys, arch)?.try_into()?;
    apply_filter_all_threads(&no_clone3)?;
    apply_filter_all_threads(&list)?;
    Ok("enforced".into())
}

/// Allowed with some arguments only.
fn conditional(allowed: &Allowed<'_>) -> Result<Rules> {
    let one_of = |argument: u8, values: &[u64]| -> Result<Vec<SeccompRule>> {
        let rule = |value: &u64| {
            SeccompRule::new(vec![SeccompCondition::new(argument, Dword, Eq, *value)?])
        };
        Ok(values.iter().map(rule).collect::<Result<_, _>>()?)
    };
    let masked = |argument: u8, mask: u64, value: u64| -> Result<Vec<SeccompRule>> {
        let condition = SeccompCondition::new(argument, Qword, MaskedEq(mask), value)?;
        Ok(vec![SeccompRule::new(vec![condition])?])
    };
    let families = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
    let terminal = [libc::TCGETS, libc::TIOCGWINSZ, libc::FIONBIO, libc::FIONREAD, libc::FIOCLEX];
    // Libraries are loaded for name lookups only; nothing else becomes code.
    let no_code = if allowed.resolve { 0 } else { libc::PROT_EXEC as u64 };
    let thread = libc::CLONE_THREAD as u64;
    Ok(Rules::from([
        (libc::SYS_socket, one_of(0, &families.map(|family| family as u64))?),
        (libc::SYS_ioctl, one_of(1, &terminal)?),
        (libc::SYS_mmap, masked(2, no_code, 0)?),
        (libc::SYS_mprotect, masked(2, no_code, 0)?),
        (libc::SYS_clone, masked(0, thread, thread)?),
        (libc::SYS_clone3, Vec::new()),
    ]))
}
