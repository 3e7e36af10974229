# What CI runs.
default: fmt clippy imports test doc examples quickstart

fmt:
    cargo fmt --all --check

clippy:
    cargo clippy --all-targets --all-features --locked -- -D warnings

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

bench:
    cargo bench --locked

# Licences, bans and sources of the dependencies; advisories need the network.
deny:
    cargo deny check
