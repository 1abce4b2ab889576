//! What the first bad record of the last segment is: the remains of a write
//! that was cut, or damage to something that may have been acknowledged. Pure.
//!
//! A disk writes sectors whole, and where a record comes to stand there are
//! zeros before it. So a write that was cut lacks whole sectors of its record,
//! and these hold zeros. A record whose envelope holds and that has something
//! in each of its sectors was written whole: it was damaged since. (A record
//! that has a sector of zeros by itself gets a witness before it is
//! acknowledged: see [`has_blank_part`] and `Writer::sync`.)

use crate::codec::{self, BARE_RECORD, RECORD_HEADER, Record, Stamp};

/// The unit that a disk writes whole; larger ones are multiples of it.
const SECTOR: u64 = 512;
/// A byte that changed in a place of zeros is no record's remains.
const STRAY: usize = 1;
/// A mark is not acknowledged and can be told from any other record, since a
/// checksum differs by more than this.
const MARK_DAMAGE: usize = 4;

/// The parts of `bytes`, which stand at `offset` in their file, by sectors.
fn parts(bytes: &[u8], offset: u64) -> impl Iterator<Item = &[u8]> {
    let first = bytes.len().min((SECTOR - offset % SECTOR) as usize);
    let (head, rest) = bytes.split_at(first);
    std::iter::once(head).chain(rest.chunks(SECTOR as usize))
}

fn is_blank(part: &[u8]) -> bool {
    part.iter().all(|b| *b == 0)
}

/// Whether a record to be written at `offset` has nothing but zeros in one of
/// its sectors.
pub(crate) fn has_blank_part(record: &[u8], offset: u64) -> bool {
    parts(record, offset).any(is_blank)
}

/// Whether the bad record number `seq` may be what is left of a write that was
/// cut, or of something that nobody was told of. `bytes` are what stands at
/// `offset`, as far as its length says (see [`extent`]); nothing but zeros
/// stands in the file from `dirty` on.
pub(crate) fn may_be_torn(bytes: &[u8], offset: u64, seq: u64, seed: u32, dirty: u64) -> bool {
    let head = &bytes[..bytes.len().min(RECORD_HEADER)];
    if head.iter().filter(|b| **b != 0).count() <= STRAY || parts(head, offset).any(is_blank) {
        return true;
    }
    let known = codec::head_holds(head, seq) && codec::extent(head).is_some_and(|whole| whole == bytes.len());
    if known && parts(bytes, offset).any(is_blank) {
        return true;
    }
    let mut mark = Vec::with_capacity(BARE_RECORD);
    let stamp = Stamp { seq, durable: seq - 1 };
    codec::encode(&Record::Mark, stamp, seed, &mut mark).expect("a mark has no body");
    let differing = mark.iter().zip(bytes).filter(|(a, b)| a != b).count();
    dirty <= offset + BARE_RECORD as u64 && differing <= MARK_DAMAGE
}

/// How many bytes [`may_be_torn`] wants to see of the record whose envelope is `head`.
pub(crate) fn extent(head: &[u8]) -> usize {
    codec::extent(head).unwrap_or(BARE_RECORD)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::LogId;

    const SEED: u32 = 5;

    fn record(seq: u64, len: usize) -> Vec<u8> {
        let mut out = Vec::new();
        let id = LogId { index: 1, term: 1, node: 1 };
        codec::encode(&Record::Entry(id, &vec![7; len]), Stamp { seq, durable: seq - 1 }, SEED, &mut out).unwrap();
        out
    }

    fn torn(bytes: &[u8], offset: u64, seq: u64) -> bool {
        let end = bytes.iter().rposition(|b| *b != 0).map_or(0, |n| n as u64 + 1);
        may_be_torn(&bytes[..extent(bytes).min(bytes.len())], offset, seq, SEED, offset + end)
    }

    #[test]
    fn a_record_that_lacks_sectors_may_be_torn_and_one_with_a_changed_byte_is_damaged() {
        for offset in (0..SECTOR).step_by(24) {
            let whole = record(9, 1300);
            let sectors = (offset + whole.len() as u64).div_ceil(SECTOR);
            for lost in 1..1u32 << sectors {
                let mut cut = whole.clone();
                for (n, b) in cut.iter_mut().enumerate() {
                    if lost >> ((offset + n as u64) / SECTOR) & 1 == 1 {
                        *b = 0;
                    }
                }
                cut.resize(2000, 0);
                assert!(torn(&cut, offset, 9), "at {offset}, lost {lost:b}");
            }
            for at in 0..whole.len() {
                for mask in [1, 0x80, 0xff] {
                    let mut damaged = whole.clone();
                    damaged[at] ^= mask;
                    damaged.resize(2000, 0);
                    assert!(!torn(&damaged, offset, 9), "at {offset}, byte {at} ^ {mask}");
                }
            }
        }
    }

    #[test]
    fn what_nobody_was_told_of_is_no_damage() {
        let mut mark = Vec::new();
        codec::encode(&Record::Mark, Stamp { seq: 9, durable: 8 }, SEED, &mut mark).unwrap();
        mark.resize(600, 0);
        for at in 0..BARE_RECORD {
            mark[at] ^= 0x10;
            assert!(torn(&mark, 64, 9), "byte {at} of a mark");
            mark[at] ^= 0x10;
        }
        let mut stray = vec![0; 600];
        stray[3] = 0x54;
        assert!(torn(&stray, 64, 9), "a byte in a place of zeros");
    }

    #[test]
    fn a_record_with_a_sector_of_zeros_is_known_when_it_is_written() {
        let payload = |len: usize| {
            let mut out = Vec::new();
            let id = LogId { index: 1, term: 1, node: 1 };
            let stamp = Stamp { seq: 1, durable: 0 };
            codec::encode(&Record::Entry(id, &vec![0; len]), stamp, SEED, &mut out).unwrap();
            out
        };
        assert!(!has_blank_part(&payload(400), 0));
        assert!(has_blank_part(&payload(400), 400) && has_blank_part(&payload(1400), 0));
        assert!(!has_blank_part(&record(1, 5000), 24));
    }
}
