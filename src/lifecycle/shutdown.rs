//! The orderly end: no new sessions, streams ended, work finished, everything closed.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::{
    events::CloseReason,
    permits::Stage,
    principal::Principal,
    registry::{Mode, Registry},
    snapshot::{Closed, Stats, UnendedSession},
};

/// How often to see whether the last request has ended. Ends are atomic writes that wake nobody.
const LOOK: Duration = Duration::from_millis(20);

/// Sessions closed in one poll.
const BATCH: usize = 256;

impl Registry {
    /// Refuses new sessions, ends GET streams, lets the rest finish for `grace`, closes all, and
    /// waits until the server behind was told, for `close_timeout` at most.
    pub(crate) async fn shut_down(&self, grace: Duration) {
        self.set_mode(Mode::Draining);
        for record in self.records() {
            let streams = record.get_streams();
            streams.iter().filter_map(|stream| stream.upgrade()).for_each(|stream| stream.cut());
        }
        // A timeout here is the grace running out, which is as good an end.
        let _ = timeout(grace, async {
            while self.is_busy() {
                sleep(LOOK).await;
            }
        })
        .await;
        self.set_mode(Mode::ShutDown);
        self.close_openings(CloseReason::Shutdown, |_| true);
        for batch in self.records().chunks(BATCH) {
            for record in batch {
                self.close(record, CloseReason::Shutdown);
            }
            tokio::task::yield_now().await;
        }
        self.closer().kick();
        let _ = timeout(self.closer().limit(), async {
            self.all_released().await;
            self.closer().all_unclaimed_ended().await;
        })
        .await;
    }

    /// Closes every session whose principal `matches`, those that are being opened included, and
    /// says how many.
    pub(crate) fn close_where(
        &self,
        reason: CloseReason,
        matches: impl Fn(Option<&Principal>) -> bool,
    ) -> usize {
        self.count_revocation();
        let opening = self.close_openings(reason, &matches);
        let records = self.records();
        let closed =
            records.iter().filter(|one| matches(one.principal()) && self.close(one, reason));
        opening + closed.count()
    }

    fn close_openings(
        &self,
        reason: CloseReason,
        matches: impl Fn(Option<&Principal>) -> bool,
    ) -> usize {
        let (records, marked) = self.openings().matching(reason, matches);
        marked + records.iter().filter(|record| self.close(record, reason)).count()
    }

    /// Counts over the whole layer.
    pub(crate) fn stats(&self) -> Stats {
        let (mut in_flight, mut streams) = (0, 0);
        self.scan(|record| {
            in_flight += record.word().in_flight();
            streams += record.streams();
        });
        let [opening, live, closing] = self.permits().stages();
        let (unended, retrying) = self.closer().unended_counts();
        Stats {
            live,
            opening,
            closing,
            opened: self.events().opened(),
            closed: Closed::new(self.events().closed()),
            rejected: self.events().rejected(),
            in_flight,
            streams,
            terminate_failures: self.closer().failures(),
            retrying,
            unended,
        }
    }

    /// Sessions that the upstream server may still have.
    pub(crate) fn unended(&self) -> Vec<UnendedSession> {
        self.closer().unended()
    }

    pub(crate) fn live(&self) -> usize {
        self.permits().count(Stage::Live)
    }

    fn is_busy(&self) -> bool {
        let mut in_flight = 0;
        self.scan(|record| in_flight += record.word().in_flight());
        in_flight > 0 || self.permits().count(Stage::Opening) > 0
    }

    async fn all_released(&self) {
        loop {
            let released = self.permits().released();
            tokio::pin!(released);
            released.as_mut().enable();
            if self.permits().used() == 0 {
                return;
            }
            released.await;
        }
    }
}

#[cfg(all(test, not(mcp_loom)))]
mod tests {
    use std::sync::Arc;

    use tokio::time::Instant;

    use super::*;
    use crate::lifecycle::{
        closer::Terminated,
        testing::{Answer, LIMITS, NEVER, Server, open},
    };

    const GRACE: Duration = Duration::from_secs(60);

    async fn shut_down(registry: &Arc<Registry>) -> Duration {
        let begin = Instant::now();
        registry.shut_down(GRACE).await;
        begin.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_shutdown_waits_for_what_is_in_flight_and_no_longer() {
        let registry = Registry::new(NEVER, LIMITS, Vec::new());
        let in_flight = open(&registry, "a", &Server::new(Answer::With(Terminated::Done)));
        let work = tokio::spawn(async move {
            sleep(Duration::from_secs(7)).await;
            drop(in_flight);
        });
        let took = shut_down(&registry).await;
        assert!(took >= Duration::from_secs(7) && took < Duration::from_secs(8), "{took:?}");
        assert!(work.is_finished());
        assert_eq!(registry.permits().used(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_shutdown_waits_for_its_grace_and_no_longer() {
        let registry = Registry::new(NEVER, LIMITS, Vec::new());
        let in_flight = open(&registry, "a", &Server::new(Answer::With(Terminated::Done)));
        assert!(shut_down(&registry).await.abs_diff(GRACE) < Duration::from_secs(1));
        assert!(in_flight.record().word().is_closed());
        assert_eq!(registry.stats().closed.get(CloseReason::Shutdown), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_shutdown_waits_for_openings_too() {
        let registry = Registry::new(NEVER, LIMITS, Vec::new());
        let _opening = registry.begin_now(None).unwrap();
        assert!(registry.is_busy());
        assert!(shut_down(&registry).await >= GRACE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_shutdown_gives_a_silent_server_its_time_to_answer() {
        let registry = Registry::new(NEVER, LIMITS, Vec::new());
        drop(open(&registry, "a", &Server::new(Answer::Never)));
        let took = shut_down(&registry).await;
        assert!(took.abs_diff(LIMITS.close_timeout) < Duration::from_secs(1), "{took:?}");
    }
}
