//! SIGPIPE as this process was given it. Rust's runtime ignores it here, and has it end every
//! program that is started, of services, too, below which it is ignored (systemd.exec(5),
//! `IgnoreSIGPIPE=`).
#![expect(unsafe_code, reason = "looked at before the runtime, given back between fork and exec")]

use std::mem::MaybeUninit;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

static IGNORED: AtomicBool = AtomicBool::new(false);

/// Constructors run before the runtime does.
#[used]
#[unsafe(link_section = ".init_array")]
static LOOK: extern "C" fn() = look;

extern "C" fn look() {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: a null pointer changes nothing, and all zeros are a valid `sigaction`.
    let ignored = unsafe {
        libc::sigaction(libc::SIGPIPE, ptr::null(), action.as_mut_ptr()) == 0
            && action.assume_init().sa_sigaction == libc::SIG_IGN
    };
    IGNORED.store(ignored, Ordering::Relaxed);
}

/// Whether it was ignored when this process began.
pub fn was_ignored() -> bool {
    IGNORED.load(Ordering::Relaxed)
}

/// Has what `command` starts, or this process becomes, begin with it as it was.
pub fn pass_on(command: &mut Command) -> &mut Command {
    if was_ignored() {
        // SAFETY: signal is async-signal-safe, and nothing is allocated.
        unsafe {
            command.pre_exec(|| {
                libc::signal(libc::SIGPIPE, libc::SIG_IGN);
                Ok(())
            });
        }
    }
    command
}
