//! A timer wheel of one level that is re-armed lazily.
//!
//! # Ground rules
//!
//! * A touch never comes here: it writes the session's word and nothing else. An entry says when to
//!   *look*, not when to close. Whoever takes it computes the true deadline and arms it again.
//! * An entry sits in one slot, and a slot holds entries of one tick only. A deadline further away
//!   than the wheel turns goes into the last slot and is armed again from there.
//! * A slot grows by lots of [`LOT`], and gives them back one by one: a million entries of one tick are
//!   never moved or freed at once.
//! * Entries are weak: what was closed meanwhile is a husk, freed when its slot fires or when the
//!   reaper compacts.
//! * Time is given, never read.

use super::clock::Millis;

/// 1,024 ticks of one second are 17 minutes: an idle timeout of 30 is armed twice. 24 KiB.
const SLOTS: u64 = 1024;

/// A page of pointers.
const LOT: usize = 512;

/// Time until a look, in ticks that the timer task keeps up with.
#[derive(Debug)]
pub(crate) struct Wheel<T> {
    slots: Box<[Slot<T>]>,
    tick: Millis,
    /// The last tick whose slot was taken.
    cursor: u64,
    len: usize,
}

/// Entries of one tick.
#[derive(Debug)]
pub(crate) struct Slot<T> {
    lots: Vec<Vec<T>>,
}

impl<T> Slot<T> {
    const fn new() -> Self {
        Self { lots: Vec::new() }
    }

    fn push(&mut self, entry: T) {
        match self.lots.last_mut() {
            Some(lot) if lot.len() < LOT => lot.push(entry),
            _ => self.lots.push(vec![entry]),
        }
    }

    fn len(&self) -> usize {
        // All but the last are full.
        self.lots.last().map_or(0, |last| (self.lots.len() - 1) * LOT + last.len())
    }
}

impl<T> Iterator for Slot<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        let lot = self.lots.last_mut()?;
        let entry = lot.pop();
        if lot.is_empty() {
            self.lots.pop();
        }
        entry
    }
}

impl<T> Wheel<T> {
    pub(crate) fn new(tick: Millis) -> Self {
        debug_assert!(tick > 0);
        Self { slots: (0..SLOTS).map(|_| Slot::new()).collect(), tick, cursor: 0, len: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Arms `entry` to be taken at `at`, and not more than a tick later.
    pub(crate) fn arm(&mut self, entry: T, at: Millis, now: Millis) {
        if self.len == 0 {
            // Nobody turned the wheel while it was empty.
            self.cursor = self.cursor.max(now / self.tick);
        }
        let tick = at.div_ceil(self.tick).clamp(self.cursor + 1, self.cursor + SLOTS - 1);
        self.slot(tick).push(entry);
        self.len += 1;
    }

    /// The next slot that is due and not empty. Call until `None`.
    pub(crate) fn take_due(&mut self, now: Millis) -> Option<Slot<T>> {
        let due = now / self.tick;
        // After a jump of the clock, once around is enough.
        self.cursor = self.cursor.max(due.saturating_sub(SLOTS));
        while self.cursor < due {
            self.cursor += 1;
            let slot = std::mem::replace(self.slot(self.cursor), Slot::new());
            if slot.len() > 0 {
                self.len -= slot.len();
                return Some(slot);
            }
        }
        None
    }

    /// When the slot after the present one is due.
    pub(super) fn next_tick(&self, now: Millis) -> Millis {
        (now / self.tick + 1) * self.tick
    }

    /// Drops what `keep` refuses from one slot; 0 to [`Wheel::slots`] are all of them.
    pub(crate) fn compact(&mut self, slot: usize, mut keep: impl FnMut(&T) -> bool) {
        if let Some(slot) = self.slots.get_mut(slot) {
            let before = std::mem::replace(slot, Slot::new());
            self.len -= before.len();
            before.filter(|entry| keep(entry)).for_each(|entry| slot.push(entry));
            self.len += slot.len();
        }
    }

    pub(crate) fn slots(&self) -> usize {
        self.slots.len()
    }

    fn slot(&mut self, tick: u64) -> &mut Slot<T> {
        &mut self.slots[(tick % SLOTS) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(wheel: &mut Wheel<u64>, now: Millis) -> Vec<u64> {
        std::iter::from_fn(|| wheel.take_due(now)).flatten().collect()
    }

    #[test]
    fn an_entry_is_taken_at_its_time_and_at_most_a_tick_later() {
        for at in [1, 9, 10, 11, 99, 100, 5_000] {
            let mut wheel = Wheel::new(10);
            wheel.arm(at, at, 0);
            let taken = (0..).find(|&now| !due(&mut wheel, now).is_empty()).unwrap();
            assert!((at..at + 10).contains(&taken), "armed for {at}, taken at {taken}");
            assert_eq!(wheel.len(), 0);
        }
    }

    #[test]
    fn a_far_deadline_is_taken_early_to_be_armed_again_and_never_late() {
        let mut wheel = Wheel::new(1);
        wheel.arm(5_000, 5_000, 0);
        assert_eq!(due(&mut wheel, 1_022), Vec::<u64>::new());
        assert_eq!(due(&mut wheel, 1_023), [5_000]);
    }

    #[test]
    fn a_jump_of_the_clock_takes_everything_once() {
        let mut wheel = Wheel::new(10);
        for at in [5, 500, 10_000, 1_000_000] {
            wheel.arm(at, at, 0);
        }
        let mut taken = due(&mut wheel, 30 * 24 * 3_600_000);
        taken.sort_unstable();
        assert_eq!(taken, [5, 500, 10_000, 1_000_000]);
        assert_eq!(due(&mut wheel, 31 * 24 * 3_600_000), Vec::<u64>::new());
    }

    #[test]
    fn a_wheel_that_stood_still_while_empty_arms_from_now() {
        let mut wheel = Wheel::new(10);
        wheel.arm(1, 1_000_050, 1_000_000);
        assert_eq!(due(&mut wheel, 1_000_049), Vec::<u64>::new());
        assert_eq!(due(&mut wheel, 1_000_050), [1]);
    }

    #[test]
    fn a_slot_counts_and_gives_back_all_that_it_was_given() {
        for count in [0, 1, LOT - 1, LOT, LOT + 1, 3 * LOT] {
            let mut wheel = Wheel::new(10);
            (0..count as u64).for_each(|entry| wheel.arm(entry, 5, 0));
            assert_eq!(wheel.len(), count);
            let mut taken = due(&mut wheel, 10);
            taken.sort_unstable();
            assert!(taken.into_iter().eq(0..count as u64) && wheel.len() == 0);
        }
    }

    #[test]
    fn compacting_drops_husks_and_keeps_the_count() {
        let mut wheel = Wheel::new(10);
        (0..100).for_each(|at| wheel.arm(at, at * 10, 0));
        (0..2_000).for_each(|entry| wheel.arm(entry, 500, 0));
        for slot in 0..wheel.slots() {
            wheel.compact(slot, |entry| *entry % 2 == 0);
        }
        assert_eq!(wheel.len(), 1_050);
        assert_eq!(due(&mut wheel, 1_000).len(), 1_050);
    }
}
