//! Several runs read as one: in the order of keys, each key as the newest run
//! has it.

use crate::error::CheckpointError;
use crate::run::{Place, Reader, Record, Run};

pub(crate) struct Merged {
    /// The oldest first.
    readers: Vec<Reader>,
    /// Whose record is the present one.
    at: Option<usize>,
}

impl Merged {
    /// Stands before the first record.
    pub fn open(place: &Place, runs: &[Run]) -> Result<Merged, CheckpointError> {
        let mut readers = runs.iter().map(|run| Reader::open(place, run)).collect::<Result<Vec<_>, _>>()?;
        for reader in &mut readers {
            reader.step()?;
        }
        Ok(Merged { readers, at: None })
    }

    /// Goes to the next key; `false` after the last, when every run has added up.
    pub fn step(&mut self) -> Result<bool, CheckpointError> {
        if let Some(at) = self.at.take() {
            self.readers[at].step()?;
        }
        let mut lowest: Option<usize> = None;
        for (i, reader) in self.readers.iter().enumerate() {
            let Some(record) = reader.record() else { continue };
            let lower = |other: usize| self.readers[other].record().is_none_or(|other| record.key <= other.key);
            if lowest.is_none_or(lower) {
                lowest = Some(i);
            }
        }
        let Some(newest) = lowest else { return Ok(false) };
        // What the older ones have of this key was replaced.
        for older in 0..newest {
            let same = match (self.readers[older].record(), self.readers[newest].record()) {
                (Some(a), Some(b)) => a.key == b.key,
                _ => false,
            };
            if same {
                self.readers[older].step()?;
            }
        }
        self.at = Some(newest);
        Ok(true)
    }

    /// The reader that stands at the present key.
    pub fn reader(&self) -> Option<&Reader> {
        self.at.map(|at| &self.readers[at])
    }

    pub fn record(&self) -> Option<Record<'_>> {
        self.reader()?.record()
    }
}
