//! A line for each wave, and the same for machines.

use std::{fs, path::PathBuf};

use crate::wave::Wave;

const HEAD: &str = "wave  opened  gave up   POSTs  POST/s    GETs  DEL  404 right  404 wrong  \
                    streams   live  heap MiB | live inner unclaimed tasks fds  heap KiB  RSS MiB  drained ms";

pub fn head() {
    println!("{HEAD}");
    println!("{:>100}) | after the wave", "(at most");
}

pub fn line(wave: &Wave) {
    let (tally, left) = (&wave.tally, &wave.left);
    println!(
        "{:>4} {:>7} {:>8} {:>7} {:>7} {:>7} {:>4} {:>10} {:>10} {:>8} {:>6} {:>9.1} | {:>4} {:>5} {:>6} \
         {:>5} {:>3} {:>9} {:>8.1} {:>11}",
        wave.number,
        tally.opened,
        tally.given_up,
        tally.posts,
        wave.posts_per_second,
        tally.gets,
        tally.deletes,
        tally.lost_rightly,
        tally.lost_wrongly,
        wave.most_streams,
        wave.most_live,
        wave.most_heap as f64 / f64::from(1 << 20),
        left.live,
        left.inner,
        left.unclaimed,
        left.tasks,
        wave.descriptors,
        left.heap / 1024,
        wave.resident as f64 / f64::from(1 << 20),
        wave.drained_in.map_or("never".to_owned(), |ms| ms.to_string()),
    );
}

/// `soak.json` and `soak.csv` in `target/tmp`.
pub fn write(waves: &[Wave]) {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    fs::write(folder.join("soak.json"), serde_json::to_vec_pretty(waves).unwrap()).unwrap();
    let mut csv = "wave,opened,given_up,posts,posts_per_second,gets,deletes,probes,404_right,\
                   404_wrong,undead,cut,most_streams,most_live,most_heap,live,inner,handlers,unclaimed,tasks,\
                   fds,heap,rss,drained_ms\n"
        .to_owned();
    for wave in waves {
        let (tally, left) = (&wave.tally, &wave.left);
        let row = [
            wave.number,
            tally.opened,
            tally.given_up,
            tally.posts,
            wave.posts_per_second,
            tally.gets,
            tally.deletes,
            tally.probes,
            tally.lost_rightly,
            tally.lost_wrongly,
            tally.undead,
            tally.cut,
            wave.most_streams,
            wave.most_live,
            wave.most_heap,
            left.live,
            left.inner,
            left.handlers,
            left.unclaimed,
            left.tasks,
            wave.descriptors,
            left.heap,
            wave.resident,
            wave.drained_in.unwrap_or_default(),
        ];
        csv.push_str(&row.map(|figure| figure.to_string()).join(","));
        csv.push('\n');
    }
    fs::write(folder.join("soak.csv"), csv).unwrap();
    println!("written to {}", folder.join("soak.json").display());
}
