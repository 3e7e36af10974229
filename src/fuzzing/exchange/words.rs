//! Values that have a name in plain words, and that a byte picks.

/// An enum whose values have words.
macro_rules! named {
    ($(#[$doc:meta])* $name:ident { $($value:ident = $words:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum $name { $($value,)+ }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(match self { $(Self::$value => $words,)+ })
            }
        }
    };
}

/// The same, to choose from. A byte picks one by its low five bits, so a letter does (`@` is the first, `A` the
/// second). What is out of range is the first, so a longer list leaves the corpus as it is.
macro_rules! choices {
    ($(#[$doc:meta])* $name:ident { $($value:ident = $words:literal,)+ }) => {
        $crate::fuzzing::exchange::words::named! { $(#[$doc])* $name { $($value = $words,)+ } }

        impl $name {
            pub(super) const ALL: &'static [Self] = &[$(Self::$value,)+];

            pub(super) fn pick(byte: u8) -> Self {
                Self::ALL.get(usize::from(byte & 31)).copied().unwrap_or(Self::ALL[0])
            }
        }
    };
}

pub(super) use {choices, named};
