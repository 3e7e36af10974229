//! The model, driven by proptest: `just model`.
//!
//! The state that proptest keeps is the settings alone. The oracle stands beside the core and not in
//! the generator: the fuzzer has no generator, and which of two that are equally idle is evicted is
//! only known when it was.

use proptest::{prelude::*, test_runner::FileFailurePersistence};
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};

use super::{CONFIG, Config, OPERATION, Operation, Pair};

#[derive(Debug)]
struct Core;

impl ReferenceStateMachine for Core {
    type State = Config;
    type Transition = Operation;

    fn init_state() -> BoxedStrategy<Config> {
        any::<[u8; CONFIG]>().prop_map(Config::decode).boxed()
    }

    fn transitions(_: &Config) -> BoxedStrategy<Operation> {
        any::<[u8; OPERATION]>().prop_map(Operation::decode).boxed()
    }

    fn apply(config: Config, _: &Operation) -> Config {
        config
    }
}

impl StateMachineTest for Core {
    type SystemUnderTest = Pair;
    type Reference = Self;

    fn init_test(config: &Config) -> Pair {
        Pair::new(*config)
    }

    fn apply(mut pair: Pair, _: &Config, operation: Operation) -> Pair {
        pair.apply(operation);
        pair
    }

    fn teardown(pair: Pair, _: Config) {
        pair.finish();
    }
}

prop_state_machine! {
    // As many cases as PROPTEST_CASES says; 256 if it says nothing.
    #![proptest_config(ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::SourceParallel(
            "proptest-regressions",
        ))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_core_does_what_the_oracle_says(sequential 1..200 => Core);
}
