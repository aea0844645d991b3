//! Preloaded into a compiler: takes over where `main` would begin, and forks for each job.
//!
//! By then the loader has mapped and relocated the compiler's libraries and their constructors
//! have run, which is most of what a short compile costs. A job is a child of the process that
//! asked for it (`CLONE_PARENT`), which waits for it as for any other; a crash, a leak or a
//! changed global stays in it.
//!
//! Built by `build.rs` on its own, without the standard library: a preloaded library has no
//! runtime of Rust's to rely on.
#![cfg_attr(not(clippy), no_std)]
#![allow(unsafe_code, reason = "an interface of C on every side")]

use core::ffi::{CStr, c_char, c_int, c_long, c_uint, c_ulong, c_void};
use core::mem::{offset_of, size_of, transmute};
use core::ptr;
use core::slice;
use core::sync::atomic::{AtomicPtr, Ordering};

#[cfg_attr(clippy, path = "text.rs")]
mod text;
#[cfg(not(clippy))]
#[allow(dead_code, reason = "the half of the other side")]
mod wire;
#[cfg(clippy)]
use super::wire;
use wire::{FDS_MAX, HELLO, Header, Place, STREAMS};

type Strings = *mut *mut c_char;
type Main = unsafe extern "C" fn(c_int, Strings, Strings) -> c_int;
type Hook = Option<unsafe extern "C" fn()>;
type StartMain = unsafe extern "C" fn(Main, c_int, Strings, Hook, Hook, Hook, *mut c_void) -> c_int;

#[repr(C)]
struct Buffer {
    base: *mut c_void,
    length: usize,
}

/// glibc's `struct msghdr`.
#[repr(C)]
struct Message {
    name: *mut c_void,
    name_length: c_uint,
    buffers: *mut Buffer,
    buffer_count: usize,
    control: *mut c_void,
    control_length: usize,
    flags: c_int,
}

/// glibc's `struct cmsghdr`, with room for the descriptors behind it.
#[repr(C)]
struct Control {
    length: usize,
    level: c_int,
    kind: c_int,
    fds: [c_int; FDS_MAX],
}

unsafe extern "C" {
    static mut environ: Strings;
    static mut program_invocation_name: *mut c_char;
    static mut program_invocation_short_name: *mut c_char;
    fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
    fn getenv(name: *const c_char) -> *mut c_char;
    fn recvmsg(socket: c_int, message: *mut Message, flags: c_int) -> isize;
    fn recv(socket: c_int, buffer: *mut c_void, length: usize, flags: c_int) -> isize;
    fn send(socket: c_int, buffer: *const c_void, length: usize, flags: c_int) -> isize;
    fn mmap(
        at: *mut c_void,
        size: usize,
        p: c_int,
        f: c_int,
        fd: c_int,
        from: c_long,
    ) -> *mut c_void;
    fn munmap(at: *mut c_void, size: usize) -> c_int;
    fn dup2(from: c_int, to: c_int) -> c_int;
    fn close(fd: c_int) -> c_int;
    fn syscall(number: c_long, ...) -> c_long;
    fn prctl(option: c_int, ...) -> c_int;
    fn getppid() -> c_int;
    fn setpgid(process: c_int, group: c_int) -> c_int;
    fn fchdir(fd: c_int) -> c_int;
    fn umask(mask: c_uint) -> c_uint;
    fn signal(number: c_int, handler: usize) -> usize;
    fn exit(status: c_int) -> !;
    fn _exit(status: c_int) -> !;
    fn __errno_location() -> *mut c_int;
}

const RTLD_NEXT: *mut c_void = -1_isize as *mut c_void;
const EINTR: c_int = 4;
const MSG_CMSG_CLOEXEC: c_int = 0x4000_0000;
const MSG_NOSIGNAL: c_int = 0x4000;
const MSG_WAITALL: c_int = 0x100;
const SOL_SOCKET: c_int = 1;
const SCM_RIGHTS: c_int = 1;
const PROT_READ_WRITE: c_int = 3;
const MAP_PRIVATE_ANONYMOUS: c_int = 0x22;
const PR_SET_PDEATHSIG: c_int = 1;
const SIGKILL: c_ulong = 9;
const SIGTERM: c_ulong = 15;
const SIGCHLD: c_ulong = 17;
const CLONE_PARENT: c_ulong = 0x8000;
const SIGNAL_MAX: c_int = 64;
const SIG_DFL: usize = 0;
const SIG_IGN: usize = 1;
const SIG_SETMASK: c_int = 2;
#[cfg(target_arch = "x86_64")]
const SYS_CLONE: c_long = 56;
#[cfg(not(target_arch = "x86_64"))]
const SYS_CLONE: c_long = 220;
#[cfg(target_arch = "x86_64")]
const SYS_RT_SIGPROCMASK: c_long = 14;
#[cfg(not(target_arch = "x86_64"))]
const SYS_RT_SIGPROCMASK: c_long = 135;

/// Moving the code costs what it spares this number of jobs; who has had as many may have as many again.
const JOBS_BEFORE_MOVE: usize = 16;

/// The compiler's own `main`.
static MAIN: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());

#[cfg(not(clippy))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: ends the process.
    unsafe { _exit(127) }
}

/// In the place of glibc's: everything goes on as it would, but with another `main`.
///
/// # Safety
/// Called by a program's `_start`, with what glibc expects.
#[cfg_attr(not(clippy), unsafe(no_mangle))]
pub unsafe extern "C" fn __libc_start_main(
    main: Main,
    argc: c_int,
    argv: Strings,
    init: Hook,
    fini: Hook,
    loader_fini: Hook,
    stack_end: *mut c_void,
) -> c_int {
    // SAFETY: the next library's function of this name is glibc's, whose type this is.
    unsafe {
        let real = dlsym(RTLD_NEXT, c"__libc_start_main".as_ptr());
        if real.is_null() {
            _exit(127);
        }
        MAIN.store(main as *mut (), Ordering::Relaxed);
        transmute::<*mut c_void, StartMain>(real)(
            serve,
            argc,
            argv,
            init,
            fini,
            loader_fini,
            stack_end,
        )
    }
}

/// The compiler's `main`, for the rest of this process.
unsafe fn compile(argc: c_int, argv: Strings, envp: Strings) -> c_int {
    // SAFETY: what `__libc_start_main` was given.
    unsafe { transmute::<*mut (), Main>(MAIN.load(Ordering::Relaxed))(argc, argv, envp) }
}

/// Instead of `main`: takes jobs until nobody is left to give any.
unsafe extern "C" fn serve(argc: c_int, argv: Strings, envp: Strings) -> c_int {
    // SAFETY: one thread, which has nothing yet but what the loader made.
    unsafe {
        let Some((socket, library)) = descriptors() else { return compile(argc, argv, envp) };
        let auxiliary = auxiliary(argv.add(argc.cast_unsigned() as usize + 1));
        close(library);
        answer(socket, HELLO);
        for _ in 0..JOBS_BEFORE_MOVE {
            take_job(socket, auxiliary);
        }
        text::on_huge_pages();
        loop {
            take_job(socket, auxiliary);
        }
    }
}

/// The words of the auxiliary vector, its end with them: what stands behind the environment that
/// the kernel gave this process at `envp`. Runtimes other than C's look for it there.
unsafe fn auxiliary(envp: Strings) -> &'static [usize] {
    let mut next = envp;
    // SAFETY: both lists end, and stay for as long as the process (System V ABI, "Process Stack").
    unsafe {
        while !(*next).is_null() {
            next = next.add(1);
        }
        let start = next.add(1).cast::<usize>();
        let mut words = 2;
        while *start.add(words - 2) != 0 {
            words += 2;
        }
        slice::from_raw_parts(start, words)
    }
}

/// The numbers in `THINSHIM_WARM_FDS=SOCKET,LIBRARY`.
unsafe fn descriptors() -> Option<(c_int, c_int)> {
    // SAFETY: getenv's string ends in NUL and stays while nobody changes the environment.
    let text = unsafe {
        let value = getenv(c"THINSHIM_WARM_FDS".as_ptr());
        if value.is_null() {
            return None;
        }
        CStr::from_ptr(value)
    };
    let mut numbers = text.to_str().ok()?.split(',').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

unsafe fn interrupted() -> bool {
    // SAFETY: this thread's own errno.
    unsafe { *__errno_location() == EINTR }
}

/// Says a word, and whether somebody is there to hear it.
unsafe fn answer(socket: c_int, word: i32) -> bool {
    let bytes = word.to_ne_bytes();
    // SAFETY: four bytes of ours.
    unsafe {
        loop {
            if send(socket, bytes.as_ptr().cast(), bytes.len(), MSG_NOSIGNAL) >= 0 {
                return true;
            }
            if !interrupted() {
                return false;
            }
        }
    }
}

/// The descriptors that come with a job; -1 for one that does not.
type Descriptors = [c_int; FDS_MAX];

/// Reads one job, forks it, and answers with its process. Ends this process where there is none.
unsafe fn take_job(socket: c_int, auxiliary: &[usize]) {
    // SAFETY: every pointer is to memory of this function or of its own mapping.
    unsafe {
        let (header, fds) = receive_header(socket);
        let strings = header.bytes as usize;
        let arguments = header.arguments as usize;
        let variables = header.variables as usize;
        // The pointers stand before the strings, for their alignment; each list ends in a null. What
        // follows the second stands there in a new process, too.
        let lists_end = arguments + variables + 2;
        let pointers = lists_end + auxiliary.len();
        let size = pointers * size_of::<*mut c_char>() + strings;
        let memory = mmap(ptr::null_mut(), size, PROT_READ_WRITE, MAP_PRIVATE_ANONYMOUS, -1, 0);
        if memory as isize == -1 {
            _exit(1);
        }
        let lists: Strings = memory.cast();
        let text: *mut c_char = lists.add(pointers).cast();
        receive(socket, text.cast(), strings);

        let pid = syscall(SYS_CLONE, CLONE_PARENT | SIGCHLD, 0_usize, 0_usize, 0_usize, 0_usize);
        if pid == 0 {
            let argv = lists;
            let envp = lists.add(arguments + 1);
            let rest = point(argv, arguments, text, text.add(strings));
            point(envp, variables, rest, text.add(strings));
            let behind = lists.add(lists_end).cast();
            ptr::copy_nonoverlapping(auxiliary.as_ptr(), behind, auxiliary.len());
            become_job(socket, fds, &header);
            environ = envp;
            if arguments > 0 {
                name(*argv);
            }
            exit(compile(header.arguments.cast_signed(), argv, envp));
        }
        let pid = if pid < 0 { -*__errno_location() } else { pid as i32 };
        close_all(fds);
        munmap(memory, size);
        answer(socket, pid);
    }
}

/// What glibc's own messages call this process (`program_invocation_name`).
unsafe fn name(argv0: *mut c_char) {
    // SAFETY: `argv0` ends in NUL and stays for good; one thread.
    unsafe {
        program_invocation_name = argv0;
        let mut base = argv0;
        let mut next = argv0;
        while *next != 0 {
            if *next == b'/'.cast_signed() as c_char {
                base = next.add(1);
            }
            next = next.add(1);
        }
        program_invocation_short_name = base;
    }
}

/// Points `count` entries of a list at the strings from `from` on; what follows the last.
unsafe fn point(list: Strings, count: usize, from: *mut c_char, end: *mut c_char) -> *mut c_char {
    let mut next = from;
    // SAFETY: the list has room for `count` entries and a null; the mapping's new bytes are 0.
    unsafe {
        for at in 0..count {
            if next >= end {
                _exit(1);
            }
            *list.add(at) = next;
            while next < end && *next != 0 {
                next = next.add(1);
            }
            next = next.add(1);
        }
    }
    next
}

/// What a fork and exec would have done besides.
unsafe fn become_job(socket: c_int, fds: Descriptors, header: &Header) {
    // SAFETY: descriptors of this process, which nobody else uses.
    unsafe {
        // Another process's job may have files to remove.
        let is_own = header.place == Place::default();
        prctl(PR_SET_PDEATHSIG, if is_own { SIGKILL } else { SIGTERM });
        // It may have died before the prctl.
        if getppid().cast_unsigned() != header.parent {
            _exit(1);
        }
        close(socket);
        let [streams @ .., directory, waiting] = fds;
        for (number, &stream) in (0..).zip(&streams) {
            dup2(stream, number);
        }
        if header.place != Place::default() {
            take_place(header.place, directory, waiting);
        }
        close_all(fds);
    }
}

/// What a process inherits by `exec`. Tells whoever waits as soon as it is the job that may end,
/// and not what was to become it.
unsafe fn take_place(place: Place, directory: c_int, waiting: c_int) {
    // SAFETY: dispositions of this process, none of which is a function.
    unsafe {
        for number in 1..=SIGNAL_MAX {
            let is_ignored = place.ignored >> (number - 1) & 1 == 1;
            signal(number, if is_ignored { SIG_IGN } else { SIG_DFL });
        }
        // Signals to the group come from here on.
        if setpgid(0, place.group.cast_signed()) != 0 || fchdir(directory) != 0 {
            _exit(1);
        }
        umask(place.umask);
        // Who asked may have gone, and begun the job by itself.
        if !answer(waiting, HELLO) {
            _exit(1);
        }
        let blocked = &raw const place.blocked;
        syscall(SYS_RT_SIGPROCMASK, SIG_SETMASK, blocked, 0_usize, size_of::<u64>());
    }
}

unsafe fn close_all(fds: Descriptors) {
    for fd in fds {
        if fd >= 0 {
            // SAFETY: a descriptor that came with a job, and that nobody else uses.
            unsafe { close(fd) };
        }
    }
}

/// A header and the descriptors that come with it; ends this process at the end of the socket.
unsafe fn receive_header(socket: c_int) -> (Header, Descriptors) {
    let mut bytes = [0_u8; Header::SIZE];
    let mut control = Control { length: 0, level: 0, kind: 0, fds: [-1; FDS_MAX] };
    let mut buffer = Buffer { base: bytes.as_mut_ptr().cast(), length: bytes.len() };
    let mut message = Message {
        name: ptr::null_mut(),
        name_length: 0,
        buffers: &raw mut buffer,
        buffer_count: 1,
        control: (&raw mut control).cast(),
        control_length: size_of::<Control>(),
        flags: 0,
    };
    loop {
        // SAFETY: the message points to locals that outlive the call.
        let count = unsafe { recvmsg(socket, &raw mut message, MSG_CMSG_CLOEXEC | MSG_WAITALL) };
        // SAFETY: reads errno.
        if count < 0 && unsafe { interrupted() } {
            continue;
        }
        let with_streams = control.level == SOL_SOCKET
            && control.kind == SCM_RIGHTS
            && control.length >= offset_of!(Control, fds) + STREAMS * size_of::<c_int>();
        if count.cast_unsigned() != Header::SIZE || !with_streams {
            // SAFETY: nothing was begun.
            unsafe { _exit(0) }
        }
        return (Header::from_bytes(bytes), control.fds);
    }
}

unsafe fn receive(socket: c_int, to: *mut c_void, length: usize) {
    let mut done = 0;
    while done < length {
        // SAFETY: `to` has room for `length` bytes.
        let count = unsafe { recv(socket, to.byte_add(done), length - done, MSG_WAITALL) };
        // SAFETY: reads errno.
        if count < 0 && unsafe { interrupted() } {
            continue;
        }
        if count <= 0 {
            // SAFETY: nothing was begun.
            unsafe { _exit(0) }
        }
        done += count.cast_unsigned();
    }
}
