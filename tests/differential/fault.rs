//! A fault: what is done, what is looked at, and what is asked for.

use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::{column::Setup, stage::Stage};

pub(crate) struct Fault {
    pub(crate) name: &'static str,
    /// What is done, in a sentence.
    pub(crate) done: &'static str,
    pub(crate) asked: &'static [Asked],
    pub(crate) setup: fn(&mut Setup),
    /// One figure for each that is asked.
    pub(crate) run: fn(Stage) -> BoxFuture<'static, Vec<f64>>,
    pub(crate) load: Load,
}

/// What runs beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    /// It waits most of the time: all of these at once.
    Waits,
    /// It works, or its memory is measured: all columns and one other fault at once.
    Works,
    /// Its speed is measured: all columns at once, so that they share what else the machine does,
    /// and no other fault.
    Alone,
}

/// One thing that is looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) what: &'static str,
    pub(crate) unit: Unit,
    pub(crate) bound: Bound,
    /// How far from the record rmcp alone may be.
    pub(crate) near: Near,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// 1 or 0.
    Flag,
    Count,
    /// Infinite: not as long as we looked.
    Seconds,
    Millis,
    Kib,
    Mib,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Bound {
    Yes,
    No,
    /// At most.
    Most(f64),
    Exactly(f64),
    /// Not before the idle timeout, and no later than [`SLACK`] after it.
    AfterIdle,
    /// No later than this often the idle timeout, and [`SLACK`].
    WithinIdle(f64),
    /// It is what it is.
    Nothing,
}

/// What timers and a busy machine may take.
pub(crate) const SLACK: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug)]
pub(crate) enum Near {
    Exact,
    /// This many more or fewer.
    By(f64),
    /// Not compared: it says more of the machine than of rmcp.
    Any,
}

impl Asked {
    pub(crate) const fn new(what: &'static str, unit: Unit, bound: Bound, near: Near) -> Self {
        Self { what, unit, bound, near }
    }

    pub(crate) const fn yes(what: &'static str) -> Self {
        Self::new(what, Unit::Flag, Bound::Yes, Near::Exact)
    }

    pub(crate) const fn no(what: &'static str) -> Self {
        Self::new(what, Unit::Flag, Bound::No, Near::Exact)
    }

    /// Nothing may be left.
    pub(crate) const fn none(what: &'static str, near: Near) -> Self {
        Self::new(what, Unit::Count, Bound::Exactly(0.0), near)
    }

    /// Whether a figure is what is asked; `None` if nothing is.
    pub(crate) fn holds(&self, figure: f64, idle: Duration) -> Option<bool> {
        let (idle, slack) = (idle.as_secs_f64(), SLACK.as_secs_f64());
        Some(match self.bound {
            Bound::Yes => figure > 0.5,
            Bound::No => figure < 0.5,
            Bound::Most(most) => figure <= most,
            Bound::Exactly(exactly) => (figure - exactly).abs() < 1e-9,
            Bound::AfterIdle => (idle..=idle + slack).contains(&figure),
            Bound::WithinIdle(times) => figure <= times * idle + slack,
            Bound::Nothing => return None,
        })
    }

    pub(crate) fn bound_text(&self) -> String {
        match self.bound {
            Bound::Yes => "yes".to_owned(),
            Bound::No => "no".to_owned(),
            Bound::Most(most) => format!("≤ {}", self.unit.text(most)),
            Bound::Exactly(exactly) => self.unit.text(exactly),
            Bound::AfterIdle => "idle".to_owned(),
            Bound::WithinIdle(times) => format!("≤ {times} × idle"),
            Bound::Nothing => String::new(),
        }
    }
}

impl Unit {
    pub(crate) fn text(self, figure: f64) -> String {
        match self {
            Self::Flag if figure > 0.5 => "yes".to_owned(),
            Self::Flag => "no".to_owned(),
            _ if figure.is_infinite() => "never seen".to_owned(),
            Self::Count if figure.fract() == 0.0 => format!("{figure}"),
            Self::Count => format!("{figure:.1}"),
            Self::Seconds => format!("{figure:.1} s"),
            Self::Millis => format!("{figure:.1} ms"),
            Self::Kib => format!("{figure:.0} KiB"),
            Self::Mib => format!("{figure:.0} MiB"),
        }
    }

    /// What [`text`](Self::text) has written.
    pub(crate) fn parse(text: &str) -> Option<f64> {
        match text {
            "yes" => Some(1.0),
            "no" => Some(0.0),
            "never seen" => Some(f64::INFINITY),
            text => text.split(' ').next()?.parse().ok(),
        }
    }
}

pub(crate) const fn flag(is_so: bool) -> f64 {
    if is_so { 1.0 } else { 0.0 }
}

pub(crate) fn seconds(time: Option<Duration>) -> f64 {
    time.map_or(f64::INFINITY, |time| time.as_secs_f64())
}
