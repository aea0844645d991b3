//! SIGPIPE as this process was given it. Rust's runtime ignores it here, and has it end every
//! program that is started, of services, too, below which it is ignored (systemd.exec(5),
//! `IgnoreSIGPIPE=`).
#![expect(unsafe_code, reason = "looked at before the runtime, given back between fork and exec")]

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::Signal;

use super::signals::is_ignored;

static IGNORED: AtomicBool = AtomicBool::new(false);

/// Constructors run before the runtime does.
#[used]
#[unsafe(link_section = ".init_array")]
static LOOK: extern "C" fn() = look;

extern "C" fn look() {
    IGNORED.store(is_ignored(Signal::SIGPIPE), Ordering::Relaxed);
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
