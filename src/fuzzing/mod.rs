//! What the fuzz targets in `fuzz/` call: each takes any bytes, and panics if a promise is broken.
//!
//! The same functions run over the committed corpus in `cargo test`.

mod exchange;
mod header;
mod sniff;

pub use self::{exchange::exchange, header::header, sniff::sniff};
use crate::lifecycle::model::{CONFIG, Config, OPERATION, Operation, Pair};

/// Longer sequences find nothing that shorter ones do not.
const LONGEST: usize = 200;

/// Settings and a sequence of operations, done to the core and to its oracle.
pub fn operations(data: &[u8]) {
    let Some((config, operations)) = data.split_first_chunk::<CONFIG>() else { return };
    let mut pair = Pair::new(Config::decode(*config));
    let (operations, _) = operations.as_chunks::<OPERATION>();
    for operation in operations.iter().take(LONGEST) {
        pair.apply(Operation::decode(*operation));
    }
    pair.finish();
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use std::{fs, path::Path};

    fn replay(target: &str, run: fn(&[u8])) {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(target);
        let files: Vec<_> =
            fs::read_dir(&corpus).unwrap().map(|file| file.unwrap().path()).collect();
        assert!(files.len() > 5, "{} has no corpus to speak of", corpus.display());
        for file in files {
            println!("{}", file.display());
            run(&fs::read(file).unwrap());
        }
    }

    #[test]
    fn the_corpus_of_headers_breaks_no_promise() {
        replay("header", super::header);
    }

    #[test]
    fn the_corpus_of_bodies_breaks_no_promise() {
        replay("sniff", super::sniff);
    }

    #[test]
    fn the_corpus_of_operations_breaks_no_promise() {
        replay("operations", super::operations);
    }

    #[test]
    fn the_corpus_of_exchanges_breaks_no_promise() {
        replay("exchange", super::exchange);
    }
}
