//! Ids as they are in the field: the text of random UUIDs, one after the other in memory.

use uuid::Uuid;

const LENGTH: usize = uuid::fmt::Hyphenated::LENGTH;

pub struct Ids(String);

impl Ids {
    pub fn new(count: u64) -> Self {
        let mut text = String::with_capacity(count as usize * LENGTH);
        for _ in 0..count {
            let mut buffer = Uuid::encode_buffer();
            text.push_str(Uuid::new_v4().hyphenated().encode_lower(&mut buffer));
        }
        Self(text)
    }

    pub fn len(&self) -> usize {
        self.0.len() / LENGTH
    }

    /// Any number is the number of an id: the upper bits decide.
    pub fn get(&self, random: u64) -> &str {
        let at = ((u128::from(random) * self.len() as u128) >> 64) as usize;
        &self.0[at * LENGTH..][..LENGTH]
    }

    pub fn iter(&self) -> impl Iterator<Item = &str> {
        (0..self.len()).map(|at| &self.0[at * LENGTH..][..LENGTH])
    }
}
