//! Typed state that lives as long as its session, and until the upstream server was told of the end.

use std::{
    any::{Any, TypeId},
    collections::HashMap,
    fmt,
    sync::Arc,
};

use super::record::Record;

/// Values by type. Small: one or two entries a session.
pub(super) type StateMap = HashMap<TypeId, Arc<dyn Any + Send + Sync>>;

/// A session's typed state: one value a type.
///
/// It is dropped when the session closes. If the upstream server has to be told of the close, the
/// state can still be read until that is done or given up, so that a
/// [`terminate_with`](crate::McpSessionLayer::terminate_with) hook finds what a handler left here.
/// Nothing is put into the state of a closed session or taken out of it.
///
/// From [`Session::state`](crate::Session::state).
#[derive(Clone, Copy)]
pub struct State<'a> {
    record: &'a Arc<Record>,
}

impl<'a> State<'a> {
    pub(super) fn new(record: &'a Arc<Record>) -> Self {
        Self { record }
    }

    /// The value of type `T`, if the session has one.
    pub fn get<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        let value = self.record.cold().extras()?.state.get(&TypeId::of::<T>()).cloned()?;
        value.downcast().ok()
    }

    /// The value of type `T`, made by `make` if the session has none.
    ///
    /// `make` runs without a lock held, so it may use the session; of two callers that race, one
    /// value is kept and both get it. On a closed session a new value is returned but not kept.
    ///
    /// ```
    /// use std::sync::atomic::{AtomicU64, Ordering};
    /// use mcp_session_layer::Session;
    ///
    /// async fn handler(session: Session) -> String {
    ///     let calls = session.state().get_or_insert_with(|| AtomicU64::new(0));
    ///     format!("call {}", calls.fetch_add(1, Ordering::Relaxed) + 1)
    /// }
    /// ```
    pub fn get_or_insert_with<T: Send + Sync + 'static>(&self, make: impl FnOnce() -> T) -> Arc<T> {
        if let Some(value) = self.get() {
            return value;
        }
        let made = Arc::new(make());
        let kept: Option<Arc<dyn Any + Send + Sync>> =
            self.record.cold().extras_mut().map(|extras| {
                let slot = extras.state.entry(TypeId::of::<T>());
                Arc::clone(slot.or_insert_with(|| Arc::clone(&made) as _))
            });
        kept.and_then(|value| value.downcast().ok()).unwrap_or(made)
    }

    /// Takes the value of type `T` out of the session; `None` also if the session is closed.
    pub fn remove<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        let value = self.record.cold().extras_mut()?.state.remove(&TypeId::of::<T>())?;
        value.downcast().ok()
    }
}

impl fmt::Debug for State<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("session", &self.record.fingerprint()).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[cfg(not(mcp_loom))]
mod tests {
    use super::*;
    use crate::lifecycle::owner::nowhere;

    #[test]
    fn what_was_put_in_comes_out_once_and_by_its_type() {
        let owner = nowhere().find(None.into());
        let record = Arc::new(Record::opening(0, owner, None));
        let state = State::new(&record);
        assert_eq!(*state.get_or_insert_with(|| 7_u32), 7);
        assert_eq!(*state.get_or_insert_with(|| 8_u32), 7);
        assert_eq!(state.get::<u32>().as_deref(), Some(&7));
        assert!(state.get::<u64>().is_none() && state.remove::<u64>().is_none());
        assert_eq!(state.remove::<u32>().as_deref(), Some(&7));
        assert!(state.get::<u32>().is_none() && state.remove::<u32>().is_none());
        drop(record.end_unopened(false));
        assert_eq!(*state.get_or_insert_with(|| 9_u32), 9);
        assert!(state.get::<u32>().is_none(), "nothing is kept of a closed session");
    }

    #[test]
    fn state_that_stays_at_the_close_can_be_read_and_not_changed_until_it_is_taken() {
        let record = Arc::new(Record::opening(0, nowhere().find(None.into()), None));
        let state = State::new(&record);
        let kept = state.get_or_insert_with(|| 7_u32);
        drop(record.end_unopened(true));
        assert_eq!(*state.get_or_insert_with(|| 8_u32), 7);
        assert_eq!(*state.get_or_insert_with(|| 'x'), 'x');
        assert!(state.get::<char>().is_none() && state.remove::<u32>().is_none());
        assert_eq!(Arc::strong_count(&kept), 2);
        drop(record.take_state());
        assert!(state.get::<u32>().is_none());
        assert_eq!(Arc::strong_count(&kept), 1);
    }
}
