//! How long a child may take: then it is asked to end, and soon after it is made to.

use std::time::{Duration, Instant};

use nix::poll::PollTimeout;
use nix::sys::signal::Signal;

/// A tool that was asked to end removes what it has half written.
const GRACE: Duration = Duration::from_secs(1);

/// The time by which a child has to end.
#[derive(Debug)]
pub struct Deadline {
    /// When something is to be done next.
    next: Option<Instant>,
    passed: bool,
}

impl Deadline {
    /// That of a child that starts now; `None`: it may take forever.
    pub fn of(limit: Option<Duration>) -> Deadline {
        // A time that no clock will show is no limit.
        let next = limit.and_then(|limit| Instant::now().checked_add(limit));
        Deadline { next, passed: false }
    }

    /// Whether the child took too long.
    pub fn passed(&self) -> bool {
        self.passed
    }

    /// The signal that the child is due at `now`.
    pub fn due(&mut self, now: Instant) -> Option<Signal> {
        if self.next.is_none_or(|next| now < next) {
            return None;
        }
        self.next = (!self.passed).then(|| now + GRACE);
        let signal = if self.passed { Signal::SIGKILL } else { Signal::SIGTERM };
        self.passed = true;
        Some(signal)
    }

    /// How long to wait, so that the first of `deadlines` is not missed.
    pub fn first<'a>(deadlines: impl IntoIterator<Item = &'a Deadline>) -> PollTimeout {
        let now = Instant::now();
        let next = deadlines.into_iter().filter_map(|deadline| deadline.next).min();
        next.map_or(PollTimeout::NONE, |next| {
            // Rounded up: waking too early would be waking twice.
            let ms = next.saturating_duration_since(now).as_millis() + 1;
            PollTimeout::try_from(i32::try_from(ms).unwrap_or(i32::MAX)).unwrap_or(PollTimeout::MAX)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_asked_then_made_to() {
        let mut none = Deadline::of(None);
        let now = Instant::now();
        assert_eq!((none.due(now + GRACE), none.passed()), (None, false));
        let mut deadline = Deadline::of(Some(Duration::from_secs(10)));
        assert_eq!(deadline.due(now + Duration::from_secs(9)), None);
        assert!(!deadline.passed());
        let late = Instant::now() + Duration::from_secs(10);
        assert_eq!(deadline.due(late), Some(Signal::SIGTERM));
        assert_eq!((deadline.due(late), deadline.passed()), (None, true));
        assert_eq!(deadline.due(late + GRACE), Some(Signal::SIGKILL));
        assert_eq!(deadline.due(late + 2 * GRACE), None);
        assert_eq!(Deadline::first([&none, &deadline]), PollTimeout::NONE);
        assert_ne!(Deadline::first([&Deadline::of(Some(Duration::MAX / 2))]), PollTimeout::ZERO);
    }
}
