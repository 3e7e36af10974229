//! What hooks cause, one after the other instead of one inside the other.
//!
//! A hook may close sessions, and each close is an event that calls the hook again. Were it handed
//! out where it is emitted, every one of a thousand closes would stand on the stack of the last. So
//! what is emitted inside of a hook waits until the event that the hook was called with has been
//! handed out; whoever emitted that one goes on with those that wait.

use std::{cell::RefCell, collections::VecDeque};

use super::{events::SessionEvent, sync::thread_local};

/// The hooks of one layer that this thread is inside of.
struct Running {
    /// The address of its `Events`: borrowed by the outermost `emit`, so nobody else's meanwhile.
    whose: usize,
    waiting: VecDeque<SessionEvent>,
}

thread_local! {
    // One for each layer whose hooks run: that of one layer may close the sessions of another.
    #[allow(clippy::missing_const_for_thread_local, reason = "loom's cannot be const")]
    static RUNNING: RefCell<Vec<Running>> = RefCell::new(Vec::new());
}

/// Hands out `event` and then what that has caused; or leaves it to the outermost caller on this
/// thread, if one of `whose` hooks has emitted it.
pub(super) fn in_turn(whose: usize, event: SessionEvent, hand_out: impl Fn(SessionEvent)) {
    let mut event = Some(event);
    // Fails in a thread that is ending: there, everything is handed out where it is emitted.
    let turn = RUNNING.try_with(|running| {
        let mut running = running.borrow_mut();
        let Some(outermost) = running.iter_mut().find(|one| one.whose == whose) else {
            running.push(Running { whose, waiting: VecDeque::new() });
            return Some(Turn { whose });
        };
        // An opened session can be closed by any thread from now on, and that must be heard later.
        if !matches!(event, Some(SessionEvent::Opened { .. })) {
            outermost.waiting.extend(event.take());
        }
        None
    });
    let turn = turn.ok().flatten();
    while let Some(next) = event {
        hand_out(next);
        event = turn.as_ref().and_then(Turn::next);
    }
}

/// That of the outermost caller. Nothing is left of it when it is dropped.
struct Turn {
    whose: usize,
}

impl Turn {
    fn next(&self) -> Option<SessionEvent> {
        let next = RUNNING.try_with(|running| {
            let mut running = running.borrow_mut();
            running.iter_mut().find(|one| one.whose == self.whose)?.waiting.pop_front()
        });
        next.ok().flatten()
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let _ = RUNNING.try_with(|running| {
            running.borrow_mut().retain(|one| one.whose != self.whose);
        });
    }
}

#[cfg(test)]
#[cfg(not(mcp_loom))]
mod tests {
    use std::{
        sync::{
            Arc, Mutex, OnceLock, Weak,
            atomic::{AtomicU64, Ordering},
        },
        time::Duration,
    };

    use futures_util::future::BoxFuture;

    use super::*;
    use crate::{
        lifecycle::{
            CloseReason, Exit, Hook, Issuer, Limits, Registry, Session, Terminate, Terminated,
            Terminator, Timeouts, WhenFull, clock::mock::Mock,
        },
        protocol::SessionId,
    };

    struct Inner;

    impl Terminate for Inner {
        fn terminate(&self, _: Session) -> BoxFuture<'static, Terminated> {
            unreachable!("it has issued no id")
        }
    }

    fn layer(hooks: Vec<Hook>) -> Arc<Registry> {
        let timeouts = Timeouts { idle: None, unused: None, lifetime: None };
        let limits = Limits {
            max_sessions: 1_000_000,
            max_sessions_per_principal: None,
            when_full: WhenFull::Reject,
            close_timeout: Duration::from_secs(1),
            shortest: None,
            remember_closed: false,
        };
        // tokio's clock, once a test has paused it, cannot be read by a thread that is ending.
        let clock = Mock::new(Box::leak(Box::default())).clock();
        Registry::on(clock, timeouts, limits, hooks)
    }

    fn open(registry: &Arc<Registry>, id: &str) {
        let opening = registry.begin_now(None).unwrap();
        let id = SessionId::new(id).unwrap();
        opening.complete(id, Issuer::Layer, Terminator::new(Inner), Exit::Stamp).unwrap();
    }

    fn close_all(registry: &Arc<Registry>) -> usize {
        registry.close_where(CloseReason::Requested, |_| true)
    }

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<String>>>);

    impl Log {
        fn write(&self, line: impl Into<String>) {
            self.0.lock().unwrap().push(line.into());
        }

        #[track_caller]
        fn assert(&self, lines: &[&str]) {
            assert_eq!(*self.0.lock().unwrap(), lines);
        }
    }

    fn nothing_is_left() -> bool {
        RUNNING.with(|running| running.borrow().is_empty())
    }

    #[test]
    fn a_hundred_thousand_closes_each_by_the_hook_of_the_last_do_not_fill_the_stack() {
        const MANY: u64 = 100_000;
        let slot = Arc::new(OnceLock::<Weak<Registry>>::new());
        let inside = Arc::clone(&slot);
        let heard = Arc::new(AtomicU64::new(0));
        let hears = Arc::clone(&heard);
        let registry = layer(vec![Arc::new(move |event| {
            if matches!(event, SessionEvent::Closed { .. }) {
                let next = (hears.fetch_add(1, Ordering::Relaxed) + 1).to_string();
                let registry = inside.get().unwrap().upgrade().unwrap();
                if let Some(next) = registry.find(next.as_bytes()) {
                    assert!(registry.close(&next, CloseReason::Requested));
                }
            }
        })]);
        slot.set(Arc::downgrade(&registry)).unwrap();
        for n in 0..MANY {
            open(&registry, &n.to_string());
        }
        registry.close(&registry.find(b"0").unwrap(), CloseReason::Requested);
        assert_eq!(heard.load(Ordering::Relaxed), MANY);
        assert_eq!(registry.events().closed().iter().sum::<u64>(), MANY);
        assert!(registry.records().is_empty() && nothing_is_left());
    }

    /// Two layers, each with a hook that closes all sessions of the other.
    #[test]
    fn layers_that_close_each_others_sessions_wait_for_their_own_events_only() {
        let log = Log::default();
        let slots = [Arc::new(OnceLock::new()), Arc::new(OnceLock::new())];
        let make = |name: &'static str, other: &Arc<OnceLock<Weak<Registry>>>| {
            let (log, other) = (log.clone(), Arc::clone(other));
            layer(vec![Arc::new(move |event| {
                if matches!(event, SessionEvent::Closed { .. }) {
                    log.write(format!("{name} begins"));
                    close_all(&other.get().unwrap().upgrade().unwrap());
                    log.write(format!("{name} ends"));
                }
            })])
        };
        let (a, b) = (make("a", &slots[1]), make("b", &slots[0]));
        slots[0].set(Arc::downgrade(&a)).unwrap();
        slots[1].set(Arc::downgrade(&b)).unwrap();
        open(&a, "first");
        open(&a, "second");
        open(&b, "only");
        a.close(&a.find(b"first").unwrap(), CloseReason::Requested);
        log.assert(&["a begins", "b begins", "b ends", "a ends", "a begins", "a ends"]);
        assert!(nothing_is_left());
    }

    #[test]
    fn a_hook_that_panics_keeps_back_nothing_that_it_caused() {
        let log = Log::default();
        let (slot, logs) = (Arc::new(OnceLock::<Weak<Registry>>::new()), log.clone());
        let inside = Arc::clone(&slot);
        let registry = layer(vec![Arc::new(move |event| {
            if matches!(event, SessionEvent::Closed { .. }) {
                logs.write("closed");
                close_all(&inside.get().unwrap().upgrade().unwrap());
                panic!("as hooks do");
            }
        })]);
        slot.set(Arc::downgrade(&registry)).unwrap();
        open(&registry, "one");
        open(&registry, "two");
        for _ in 0..2 {
            close_all(&registry);
        }
        log.assert(&["closed", "closed"]);
        assert!(nothing_is_left());
        open(&registry, "three");
        close_all(&registry);
        log.assert(&["closed", "closed", "closed"]);
    }

    /// Sessions that a thread's own storage closes, when what this module keeps there is gone.
    #[test]
    fn a_thread_that_is_ending_still_tells() {
        struct AtTheEnd(Arc<Registry>);
        impl Drop for AtTheEnd {
            fn drop(&mut self) {
                assert!(RUNNING.try_with(|_| ()).is_err());
                close_all(&self.0);
            }
        }
        std::thread_local! {
            static LAST: std::cell::OnceCell<AtTheEnd> = const { std::cell::OnceCell::new() };
        }
        let log = Log::default();
        let logs = log.clone();
        let registry = layer(vec![Arc::new(move |event| {
            logs.write(if matches!(event, SessionEvent::Opened { .. }) {
                "opened"
            } else {
                "closed"
            });
        })]);
        let lasts = Arc::clone(&registry);
        let thread = std::thread::spawn(move || {
            // First in, last out.
            assert!(LAST.with(|last| last.set(AtTheEnd(Arc::clone(&lasts)))).is_ok());
            open(&lasts, "one");
            open(&lasts, "two");
        });
        thread.join().unwrap();
        log.assert(&["opened", "opened", "closed", "closed"]);
    }
}
