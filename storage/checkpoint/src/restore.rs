//! Reading a whole checkpoint back, and believing it only when it adds up.

use crate::codec::{self, StoredObject};
use crate::error::CheckpointError;
use crate::merge::Merged;

/// Objects in the order of their keys. What was read may be used only when the
/// last page has come without an error.
pub struct Pages(Option<Merged>);

impl Pages {
    pub(crate) fn new(merged: Option<Merged>) -> Pages {
        Pages(merged)
    }

    /// About `max_bytes` of objects; `None` after the last, when every run has
    /// added up.
    ///
    /// # Errors
    /// [`CheckpointError::Lost`] with file and offset of what is damaged.
    pub fn next_page(&mut self, max_bytes: usize) -> Result<Option<Vec<StoredObject>>, CheckpointError> {
        let (mut page, mut bytes) = (Vec::new(), 0);
        while let Some(merged) = &mut self.0 {
            if !merged.step()? {
                self.0 = None;
                break;
            }
            let Some(reader) = merged.reader() else { break };
            let Some(record) = reader.record() else { break };
            let Some(body) = record.body else { continue };
            page.push(codec::decode_object(record.key, body).map_err(|bad| reader.bad(bad))?);
            bytes += record.bytes.len();
            if bytes >= max_bytes {
                break;
            }
        }
        Ok((!page.is_empty()).then_some(page))
    }
}
