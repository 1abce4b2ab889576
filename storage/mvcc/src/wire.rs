//! The small encoding of replicated bookkeeping in a checkpoint's header:
//! LEB128 numbers and bytes. Readers trust no length.

use bytes::Bytes;

use crate::ImportError;

#[derive(Debug, Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub fn byte(&mut self, b: u8) {
        self.0.push(b);
    }

    pub fn number(&mut self, mut n: u64) {
        while n >= 0x80 {
            self.0.push(n as u8 | 0x80);
            n >>= 7;
        }
        self.0.push(n as u8);
    }

    pub fn finish(self) -> Bytes {
        self.0.into()
    }
}

#[derive(Debug)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader(bytes)
    }

    pub fn is_done(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> Result<u8, ImportError> {
        let (first, rest) = self.0.split_first().ok_or_else(|| ImportError::Malformed("it ends early".into()))?;
        self.0 = rest;
        Ok(*first)
    }

    pub fn number(&mut self) -> Result<u64, ImportError> {
        let mut n = 0u64;
        for shift in (0..64).step_by(7) {
            let b = self.byte()?;
            let bits = u64::from(b & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            n |= bits << shift;
            if b < 0x80 {
                return Ok(n);
            }
        }
        Err(ImportError::Malformed("a number is too long".into()))
    }

    /// A number of things, each of at least a byte: never more than are left.
    pub fn count(&mut self, limit: u64) -> Result<u64, ImportError> {
        let n = self.number()?;
        if n > limit || n > self.0.len() as u64 {
            return Err(ImportError::Malformed(format!("{n} items where {} bytes are left", self.0.len())));
        }
        Ok(n)
    }
}
