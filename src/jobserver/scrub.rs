//! Children that shall know of no jobserver.

use std::process::Command;

/// Every variable that carries one (`GNUMAKEFLAGS`: make's own extra options).
const VARIABLES: [&str; 4] = ["MAKEFLAGS", "MFLAGS", "CARGO_MAKEFLAGS", "GNUMAKEFLAGS"];

/// Hides the jobserver from `command`: a compiler that outlives its link, or starts something
/// that does, would keep make waiting. Its descriptors need no care here: ours are
/// close-on-exec, and [`Pool::join`](super::Pool::join) makes the inherited ones so.
pub fn scrub(command: &mut Command) {
    for variable in VARIABLES {
        command.env_remove(variable);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_word_of_it_is_left() {
        let mut command = Command::new("true");
        command.env("MAKEFLAGS", " -j2 --jobserver-auth=3,4").env("CC", "clang");
        scrub(&mut command);
        let left: Vec<_> = command.get_envs().filter(|(_, value)| value.is_some()).collect();
        assert_eq!(left, [("CC".as_ref(), Some("clang".as_ref()))]);
        for variable in VARIABLES {
            assert!(command.get_envs().any(|(name, value)| name == variable && value.is_none()));
        }
    }
}
