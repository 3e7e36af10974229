//! What came of a wave, counted.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard},
};

use serde::Serialize;

#[derive(Clone, Debug, Default, Serialize)]
pub struct Tally {
    /// `initialize` that was answered.
    pub opened: usize,
    /// `initialize` that was hung up on before.
    pub given_up: usize,
    /// Every POST there was, probes of dead sessions apart.
    pub posts: usize,
    pub gets: usize,
    pub deletes: usize,
    /// Requests that had to find a session dead.
    pub probes: usize,
    pub lost_rightly: usize,
    pub lost_wrongly: usize,
    pub undead: usize,
    /// Answers cut by the lifetime of their session.
    pub cut: usize,
    pub unexpected: BTreeMap<String, usize>,
}

impl Tally {
    pub fn unexpected(&mut self, what: impl Into<String>) {
        *self.unexpected.entry(what.into()).or_default() += 1;
    }
}

#[derive(Debug, Default)]
pub struct Count(Mutex<Tally>);

impl Count {
    pub fn lock(&self) -> MutexGuard<'_, Tally> {
        self.0.lock().unwrap()
    }

    pub fn unexpected(&self, what: impl Into<String>) {
        self.lock().unexpected(what);
    }
}
