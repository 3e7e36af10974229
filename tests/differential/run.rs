//! Every fault in every column.

use std::time::Duration;

use futures_util::{StreamExt, future::join_all, stream};
use tokio::time::{Instant, sleep};

use crate::{
    column::{Column, Setup},
    fault::{Fault, Load},
    stage::Stage,
};

/// A fault, and what was seen of it in each column.
pub(crate) struct Seen {
    pub(crate) fault: Fault,
    pub(crate) idle: Duration,
    pub(crate) figures: [Vec<f64>; 3],
}

const LONG: Duration = Duration::from_secs(10);
const APART: Duration = Duration::from_secs(5);

pub(crate) async fn all(mut faults: Vec<Fault>, idle: Duration) -> Vec<Seen> {
    if idle > LONG {
        // Nothing that is about speed is to be seen in a quarter of an hour beside other things.
        faults.retain(|fault| fault.load != Load::Alone);
    }
    let begin = Instant::now();
    let mut figures: Vec<[Vec<f64>; 3]> = faults.iter().map(|_| Default::default()).collect();
    // Where idle is long, all of them wait for it; they need not begin at once.
    let waits = |load| load == Load::Waits || load == Load::Works && idle > LONG;
    let waiting = faults.iter().enumerate().filter(|(_, fault)| waits(fault.load));
    let waiting = join_all(waiting.map(async |(at, fault)| {
        if idle > LONG {
            sleep(at as u32 * APART).await;
        }
        (at, columns(fault, idle).await)
    }))
    .await;
    for (at, seen) in waiting {
        figures[at] = seen;
    }
    let works = faults.iter().enumerate().filter(|(_, fault)| !waits(fault.load));
    let works = works.filter(|(_, fault)| fault.load == Load::Works);
    // Two, for much of each is waiting as well.
    let mut works = stream::iter(works.map(async |(at, fault)| (at, columns(fault, idle).await)))
        .buffer_unordered(2);
    while let Some((at, seen)) = works.next().await {
        figures[at] = seen;
    }
    drop(works);
    for (at, fault) in faults.iter().enumerate().filter(|(_, fault)| fault.load == Load::Alone) {
        figures[at] = columns(fault, idle).await;
    }
    eprintln!("{} faults in {:.1?}", faults.len(), begin.elapsed());
    let seen = faults.into_iter().zip(figures);
    seen.map(|(fault, figures)| Seen { fault, idle, figures }).collect()
}

async fn columns(fault: &Fault, idle: Duration) -> [Vec<f64>; 3] {
    let [bare, tuned, layered] = Column::ALL.map(|column| one(fault, column, idle));
    tokio::join!(bare, tuned, layered).into()
}

async fn one(fault: &Fault, column: Column, idle: Duration) -> Vec<f64> {
    let begin = Instant::now();
    let mut setup = Setup::new(column, idle);
    (fault.setup)(&mut setup);
    let figures = (fault.run)(Stage::new(setup).await).await;
    assert_eq!(figures.len(), fault.asked.len(), "{}", fault.name);
    eprintln!("{:>5.1?}  {}: {}", begin.elapsed(), column.name(), fault.name);
    figures
}
