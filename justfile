# Before a commit. `just ci` is all that CI runs.
default: fmt clippy imports test loom doc examples quickstart

# The gate: everything here in its CI size, some 20 minutes on 2 cores.
ci:
    .ci/run

fmt:
    cargo fmt --all --check

# With what `--all-targets` leaves out, because a plain `cargo test` does not run it.
clippy:
    cargo clippy --all-targets --test secrets --test differential --test soak --test drill --all-features --locked -- -D warnings

# The tests, as in the README.
test:
    cargo test --locked

# Imports run one way (also part of `test`).
imports:
    cargo test --locked --test architecture

doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --all-features --locked

examples:
    cargo build --examples --locked

quickstart:
    cargo run --example quickstart --locked

# All that is measured, and then BENCHMARKS.md with its plots: on a machine that has nothing else to do.
# `just bench touch reap` runs only those.
bench *names:
    benches/run {{names}}

# Licences, bans and sources of the dependencies; advisories need the network.
deny:
    cargo deny check

# --- batteries (RELIABILITY.md has what they found) ------------------------------------------------

# Every interleaving of the activity word, of open and of close, up to 2 preemptions.
loom:
    RUSTFLAGS="--cfg mcp_loom" CARGO_TARGET_DIR=target/loom cargo test --lib --locked loom

# The same up to 3; for the night.
loom-deep:
    LOOM_MAX_PREEMPTIONS=3 RUSTFLAGS="--cfg mcp_loom" CARGO_TARGET_DIR=target/loom cargo test --lib --release --locked loom

# The core against its oracle: 10,000 sequences of up to 200 operations.
model:
    PROPTEST_CASES=10000 cargo test --config .cargo/battery.toml --lib --locked model::

# Ten times as many; for the night.
model-long:
    PROPTEST_CASES=100000 cargo test --config .cargo/battery.toml --lib --locked model::

# A hundred thousand exchanges of the table of which a plain run of the tests takes some thousands.
table:
    EXCHANGES=100000 cargo test --config .cargo/battery.toml --lib --locked exchange::table

# Real threads: 10 million times a request and the reaper at one deadline, 2 million sessions at once.
threads:
    COLLISIONS=10000000 CHURNS=2000000 cargo test --config .cargo/battery.toml --lib --locked collisions -- --nocapture --test-threads 1

# Exchanges with rmcp dropped at every poll; a round is about 1,400 of them.
cancellation rounds="3":
    CANCELLATION_ROUNDS={{rounds}} cargo test --locked --test cancellation -- --nocapture

# The layer between two network namespaces that lose every packet. Needs root and iproute2.
half-open:
    cargo test --locked --test half_open -- --ignored --nocapture --test-threads 12

# Each target for a minute, on the stable toolchain; needs `cargo install --locked cargo-fuzz`.
fuzz:
    fuzz/run 60

# The same for an hour each.
fuzz-long:
    fuzz/run 3600

# Thousands of clients in waves, of whom 99 in 100 never say goodbye: ten minutes, and nothing stays.
soak:
    cargo test --release --locked --features __bench --test soak -- 600

# The same in a minute, as CI runs it.
soak-ci:
    cargo test --release --locked --features __bench --test soak -- 60

# One hundred clients under attack, in 45 seconds, as CI runs it.
drill:
    cargo test --release --locked --features __bench --test drill

# The same for ten minutes.
drill-long:
    cargo test --release --locked --features __bench --test drill -- 16 15

# That every check of the soak and of the drill can fail.
load-proof:
    cargo test --release --locked --features __bench --test soak -- prove
    cargo test --release --locked --features __bench --test drill -- prove

# The same faults against rmcp alone and behind the layer, compared with tests/differential/RESULTS.md.
differential:
    cargo test --locked --test differential -- --check

# The same, recorded.
differential-record:
    cargo test --locked --test differential -- --record

# The same with rmcp's own 5 minutes, in about 13; recorded.
differential-real-time:
    cargo test --locked --test differential -- --record --idle 5m --file tests/differential/REAL-TIME.md

# The official conformance suite, the official clients, and MCP servers in Python and TypeScript behind the
# proxy; installs them from npm and PyPI. `just interop servers` runs only those.
interop *parts:
    node tests/interop/run.mjs {{parts}}

# No id in anything that the layer emits at TRACE, over the whole suite.
secrets:
    rm -rf target/trace
    MCP_TRACE_DIR=$PWD/target/trace cargo test --locked
    MCP_TRACE_DIR=$PWD/target/trace cargo test --locked --test secrets -- --nocapture

# Every change to the core that cargo-mutants can think of, against the unit tests and the model, in half an
# hour; needs `cargo install --locked cargo-mutants`. What they miss is tried again against the whole suite.
mutants:
    CARGO_PROFILE_TEST_DEBUG=0 PROPTEST_CASES=64 PROPTEST_MAX_SHRINK_ITERS=0 cargo mutants --timeout 12 --output target -C=--lib -- -- --skip collisions || true
    cargo mutants --iterate --timeout 120 --output target

# The suite again and again: `just repeats 200`. Built once.
repeats times lanes="1":
    tests/repeat {{times}} {{lanes}}
