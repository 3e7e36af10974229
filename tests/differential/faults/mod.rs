//! The faults, in the order of the table.

mod background;
mod cancelled;
mod cost;
mod flood;
mod hijack;
mod idle;
mod long_call;
mod restart;
mod shutdown;
mod stalled;
mod weight;

use crate::fault::Fault;

pub(crate) fn all() -> impl Iterator<Item = Fault> {
    std::iter::empty()
        .chain(idle::FAULTS)
        .chain(long_call::FAULTS)
        .chain(background::FAULTS)
        .chain(cancelled::FAULTS)
        .chain(stalled::FAULTS)
        .chain(flood::FAULTS)
        .chain(hijack::FAULTS)
        .chain(restart::FAULTS)
        .chain(shutdown::FAULTS)
        .chain(weight::FAULTS)
        .chain(cost::FAULTS)
}
