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
use core::mem::{size_of, transmute};
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};

#[cfg(not(clippy))]
#[allow(dead_code, reason = "the half of the other side")]
mod wire;
#[cfg(clippy)]
use super::wire;
use wire::{HELLO, Header, STREAMS};

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
    fds: [c_int; STREAMS + 1],
}

unsafe extern "C" {
    static mut environ: Strings;
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
const SIGCHLD: c_ulong = 17;
const CLONE_PARENT: c_ulong = 0x8000;
#[cfg(target_arch = "x86_64")]
const SYS_CLONE: c_long = 56;
#[cfg(not(target_arch = "x86_64"))]
const SYS_CLONE: c_long = 220;

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
        close(library);
        answer(socket, HELLO);
        loop {
            take_job(socket);
        }
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

/// Whoever asked may be gone: then the next read says so.
unsafe fn answer(socket: c_int, word: i32) {
    let bytes = word.to_ne_bytes();
    // SAFETY: four bytes of ours.
    unsafe {
        while send(socket, bytes.as_ptr().cast(), bytes.len(), MSG_NOSIGNAL) < 0 && interrupted() {}
    }
}

/// Reads one job, forks it, and answers with its process. Ends this process where there is none.
unsafe fn take_job(socket: c_int) {
    // SAFETY: every pointer is to memory of this function or of its own mapping.
    unsafe {
        let (header, streams) = receive_header(socket);
        let strings = header.bytes as usize;
        let arguments = header.arguments as usize;
        let variables = header.variables as usize;
        // The pointers stand before the strings, for their alignment; each list ends in a null.
        let pointers = arguments + variables + 2;
        let size = pointers * size_of::<*mut c_char>() + strings;
        let memory = mmap(ptr::null_mut(), size, PROT_READ_WRITE, MAP_PRIVATE_ANONYMOUS, -1, 0);
        if memory as isize == -1 {
            _exit(1);
        }
        let lists: Strings = memory.cast();
        let text: *mut c_char = lists.add(pointers).cast();
        receive(socket, text.cast(), strings);
        let argv = lists;
        let envp = lists.add(arguments + 1);
        let rest = point(argv, arguments, text, text.add(strings));
        point(envp, variables, rest, text.add(strings));

        let pid = syscall(SYS_CLONE, CLONE_PARENT | SIGCHLD, 0_usize, 0_usize, 0_usize, 0_usize);
        if pid == 0 {
            become_job(socket, streams, header.parent);
            environ = envp;
            exit(compile(header.arguments.cast_signed(), argv, envp));
        }
        let pid = if pid < 0 { -*__errno_location() } else { pid as i32 };
        for stream in streams {
            close(stream);
        }
        munmap(memory, size);
        answer(socket, pid);
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
unsafe fn become_job(socket: c_int, streams: [c_int; STREAMS], parent: u32) {
    // SAFETY: descriptors of this process, which nobody else uses.
    unsafe {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        // It may have died before the prctl.
        if getppid().cast_unsigned() != parent {
            _exit(1);
        }
        close(socket);
        for (number, &stream) in (0..).zip(&streams) {
            dup2(stream, number);
        }
        for stream in streams {
            close(stream);
        }
    }
}

/// A header and the descriptors that come with it; ends this process at the end of the socket.
unsafe fn receive_header(socket: c_int) -> (Header, [c_int; STREAMS]) {
    let mut bytes = [0_u8; Header::SIZE];
    let mut control = Control { length: 0, level: 0, kind: 0, fds: [-1; STREAMS + 1] };
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
        let with_streams = control.level == SOL_SOCKET && control.kind == SCM_RIGHTS;
        if count.cast_unsigned() != Header::SIZE || !with_streams {
            // SAFETY: nothing was begun.
            unsafe { _exit(0) }
        }
        let [first, second, third, _] = control.fds;
        return (Header::from_bytes(bytes), [first, second, third]);
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
