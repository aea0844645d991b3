//! The tokens of one build, as a single-threaded poll loop sees them.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Pid;

use super::discovery::{self, Ends, Environment, Identity, Source};
use super::keeper::{Heard, Keeper, Message};

/// Tokens beyond the implicit one, which every process has from the start and never returns.
///
/// The caller runs at most `1 + held()` jobs. It says with [`Pool::set_demand`] how many extra
/// tokens it could use right now, polls [`Pool::event_fd`], and calls [`Pool::pump`] when that
/// is readable. Lowering the demand gives back what is above it at once, so the demand must
/// never be below the number of running jobs less one.
///
/// Dropping the pool returns every token and waits until that is done.
#[derive(Debug)]
pub struct Pool {
    source: Source,
    identity: Option<Identity>,
    supply: Supply,
    demand: u32,
    held: u32,
    warning: Option<String>,
}

#[derive(Debug)]
enum Supply {
    /// No jobserver: this many extra jobs are ours to run.
    Local(u32),
    /// A jobserver that nothing was asked of yet.
    Idle(Ends),
    Kept(Keeper, Ledger),
    /// The implicit token is all there is.
    Dry,
}

impl Pool {
    /// Joins the jobserver that the environment names. Starts no process and takes no token.
    /// Descriptors of a jobserver that this process has inherited are close-on-exec from now on.
    pub fn join() -> Pool {
        Pool::join_from(&Environment::read())
    }

    /// As [`Pool::join`], for an environment read before.
    pub fn join_from(environment: &Environment) -> Pool {
        let flags = environment.flags();
        let (source, ends) = discovery::discover(&flags);
        log::info!("{source}");
        let identity = ends.as_ref().and_then(|ends| Identity::of(&ends.read));
        let mut warning = None;
        let supply = match (ends, &source) {
            (Some(ends), _) => Supply::Idle(ends),
            (None, Source::Unreachable(reason)) => {
                warning = Some(format!(
                    "make's jobserver is out of reach, so one job at a time: {reason}"
                ));
                Supply::Dry
            }
            (None, _) => {
                let limit = discovery::local_limit(environment, &flags);
                Supply::Local(u32::try_from(limit - 1).unwrap_or(u32::MAX))
            }
        };
        Pool { source, identity, supply, demand: 0, held: 0, warning }
    }

    /// Where tokens come from.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// Which jobserver that is; `None` where there is none to be reached.
    pub fn identity(&self) -> Option<Identity> {
        self.identity
    }

    /// How many jobs this process may ever run at once, where that is known: without a
    /// jobserver, or with one out of reach. `None`: make decides.
    pub fn limit(&self) -> Option<usize> {
        match self.supply {
            Supply::Local(extra) => Some(extra as usize + 1),
            Supply::Dry => Some(1),
            Supply::Idle(_) | Supply::Kept(..) => None,
        }
    }

    /// Why there is only the implicit token, to be told once.
    pub fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }

    /// The keeper's process, a child of ours that a `waitpid` for any child may meet.
    pub fn keeper(&self) -> Option<Pid> {
        match &self.supply {
            Supply::Kept(keeper, _) => Some(keeper.pid()),
            _ => None,
        }
    }

    /// Sets how many extra tokens the caller could use right now. Less than before: requests
    /// are cancelled, and tokens above the new number go back at once. The first demand above
    /// 0 starts the keeper; if that fails, the implicit token is all there is.
    pub fn set_demand(&mut self, extra: usize) {
        let demand = u32::try_from(extra).unwrap_or(u32::MAX);
        if demand == self.demand {
            return;
        }
        self.demand = demand;
        if matches!(self.supply, Supply::Idle(_)) {
            self.start_keeper();
        }
        match &mut self.supply {
            Supply::Local(most) => self.held = demand.min(*most),
            Supply::Kept(keeper, ledger) => {
                let message = ledger.ask(demand);
                self.held = ledger.held();
                // A keeper that died is found, and told of, by the next pump.
                keeper.say(message);
            }
            Supply::Idle(_) | Supply::Dry => {}
        }
    }

    fn start_keeper(&mut self) {
        let Supply::Idle(ends) = std::mem::replace(&mut self.supply, Supply::Dry) else { return };
        match Keeper::start(ends) {
            Ok(keeper) => {
                log::debug!("keeper {} started", keeper.pid());
                self.supply = Supply::Kept(keeper, Ledger::default());
            }
            Err(error) => self.run_dry(&format!("cannot start a keeper for tokens: {error}")),
        }
    }

    fn run_dry(&mut self, why: &str) {
        log::warn!("{why}");
        self.warning = Some(format!("{why}; one job at a time"));
        self.supply = Supply::Dry;
        self.held = 0;
    }

    /// Extra tokens in hand, never above the demand.
    pub fn held(&self) -> usize {
        self.held as usize
    }

    /// Readable when the number in hand may have changed. Comes with the first demand above 0,
    /// and only with a jobserver.
    pub fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.supply {
            Supply::Kept(keeper, _) => Some(keeper.socket().as_fd()),
            _ => None,
        }
    }

    /// Sets the demand, waits at most `patience` for it to be met, and returns the number in hand.
    /// What has not come by then is no longer asked for.
    pub fn gather(&mut self, extra: usize, patience: Duration) -> usize {
        self.set_demand(extra);
        let deadline = Instant::now() + patience;
        while self.held() < extra {
            let left = deadline.saturating_duration_since(Instant::now());
            let Some(fd) = self.event_fd().filter(|_| !left.is_zero()) else { break };
            let millis = u16::try_from(left.as_millis() + 1).unwrap_or(u16::MAX);
            let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
            match poll(&mut fds, PollTimeout::from(millis)) {
                Ok(0) => break,
                Ok(_) => {
                    self.pump();
                }
                Err(_) => {}
            }
        }
        self.set_demand(self.held());
        self.held()
    }

    /// Takes in what the keeper has to say, without waiting, and returns the number in hand.
    pub fn pump(&mut self) -> usize {
        if let Supply::Kept(keeper, ledger) = &mut self.supply {
            loop {
                match keeper.hear() {
                    Heard::Message(message) => ledger.told(message),
                    Heard::Nothing => break,
                    Heard::End => {
                        self.run_dry("the keeper of tokens was killed");
                        return 0;
                    }
                }
            }
            self.held = ledger.held();
        }
        self.held()
    }
}

/// What may be counted as in hand although the keeper's words arrive late: a report made
/// before a demand was heard is worth no more than that demand.
#[derive(Debug, Default)]
struct Ledger {
    turn: u32,
    /// Demands on their way: number and tokens.
    unheard: VecDeque<(u32, u32)>,
    reported: u32,
}

impl Ledger {
    fn ask(&mut self, tokens: u32) -> Message {
        self.turn = self.turn.wrapping_add(1);
        self.unheard.push_back((self.turn, tokens));
        Message { turn: self.turn, tokens }
    }

    fn told(&mut self, message: Message) {
        // Numbers wrap, and a report can only be about a demand that was made.
        if let Some(at) = self.unheard.iter().position(|&(turn, _)| turn == message.turn) {
            self.unheard.drain(..=at);
        }
        self.reported = message.tokens;
    }

    fn held(&self) -> u32 {
        self.unheard.iter().map(|&(_, tokens)| tokens).fold(self.reported, u32::min)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The keeper as the ledger knows it: hears in order, never has more than it was asked for.
    #[derive(Default)]
    struct Model {
        turn: u32,
        demand: u32,
        held: u32,
    }

    #[derive(Debug, Clone)]
    enum Step {
        Demand(u32),
        KeeperHears,
        KeeperTakes(u32),
        PoolHears,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..6u32).prop_map(Step::Demand),
            Just(Step::KeeperHears),
            (1..4u32).prop_map(Step::KeeperTakes),
            Just(Step::PoolHears),
        ]
    }

    proptest! {
        /// However late the words, what the pool counts on is in the keeper's hand when all
        /// demands made so far have been heard: no job ever runs on a token given back.
        #[test]
        fn the_ledger_counts_only_what_stays(steps in prop::collection::vec(step(), 0..60)) {
            let (mut ledger, mut model) = (Ledger::default(), Model::default());
            let mut demands = VecDeque::new();
            let mut reports = VecDeque::new();
            for step in steps {
                match step {
                    Step::Demand(tokens) => demands.push_back(ledger.ask(tokens)),
                    Step::KeeperHears => if let Some(Message { turn, tokens }) = demands.pop_front() {
                        model = Model { turn, demand: tokens, held: model.held.min(tokens) };
                        reports.push_back(Message { turn, tokens: model.held });
                    },
                    Step::KeeperTakes(more) => {
                        model.held = (model.held + more).min(model.demand.max(model.held));
                        reports.push_back(Message { turn: model.turn, tokens: model.held });
                    }
                    Step::PoolHears => if let Some(report) = reports.pop_front() {
                        ledger.told(report);
                    },
                }
                let certain = demands.iter().map(|demand| demand.tokens).fold(model.held, u32::min);
                prop_assert!(ledger.held() <= certain);
            }
            for report in reports {
                ledger.told(report);
            }
            if demands.is_empty() {
                prop_assert_eq!(ledger.held(), model.held);
            }
        }
    }

    #[test]
    fn without_a_jobserver_the_limit_is_ours() {
        let environment = Environment { jobs: Some("3".into()), ..Environment::default() };
        let mut pool = Pool::join_from(&environment);
        assert_eq!((pool.source(), pool.limit()), (&Source::None, Some(3)));
        pool.set_demand(1);
        assert_eq!((pool.held(), pool.pump()), (1, 1));
        pool.set_demand(40);
        assert_eq!(pool.held(), 2);
        pool.set_demand(0);
        assert_eq!(pool.held(), 0);
        assert!(pool.event_fd().is_none() && pool.keeper().is_none() && pool.warning().is_none());
    }

    #[test]
    fn limits_that_are_none_of_ours() {
        let limit = |jobs: Option<&str>, makeflags: &str| {
            let environment = Environment {
                makeflags: Some(makeflags.into()),
                jobs: jobs.map(Into::into),
                ..Environment::default()
            };
            Pool::join_from(&environment).limit().expect("no jobserver")
        };
        let cpus = limit(None, "");
        assert!(cpus >= 1);
        assert_eq!(limit(None, " -j1"), 1);
        assert_eq!(limit(None, " -j"), cpus);
        assert_eq!(limit(None, "-j100000"), cpus);
        assert_eq!(limit(Some("5"), " -j1"), 5);
        for odd in ["0", "-1", "many", ""] {
            assert_eq!(limit(Some(odd), ""), cpus, "{odd}");
        }
    }

    #[test]
    fn out_of_reach_means_one_job() {
        for auth in
            ["-2,-2", "fifo:/nonexistent/fifo", "fifo:/etc/passwd", "fifo:/", "989,990", "?"]
        {
            let environment = Environment {
                makeflags: Some(format!(" -j8 --jobserver-auth={auth}").into()),
                jobs: Some("8".into()),
                ..Environment::default()
            };
            let mut pool = Pool::join_from(&environment);
            assert!(matches!(pool.source(), Source::Unreachable(_)), "{auth}: {}", pool.source());
            assert_eq!(pool.limit(), Some(1));
            assert!(pool.warning().is_some());
            pool.set_demand(7);
            assert_eq!((pool.held(), pool.pump()), (0, 0));
        }
    }
}
