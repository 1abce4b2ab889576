//! A watch: one JSON event a line.

use bytes::{Buf, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::Value;

use super::client::KubeError;

/// A longer line is refused, in bytes.
const MAX_LINE: usize = 8 << 20;

/// Events in order. Dropping it closes the stream.
#[derive(Debug)]
pub struct Watch {
    body: Incoming,
    lines: Lines,
}

impl Watch {
    pub(super) fn new(body: Incoming) -> Watch {
        Watch { body, lines: Lines::default() }
    }

    /// The next event (`{"type": …, "object": …}`); `None` when the server
    /// ended the watch in order.
    ///
    /// # Errors
    /// The stream broke, or held something else.
    pub async fn next(&mut self) -> Result<Option<Value>, KubeError> {
        loop {
            if let Some(line) = self.lines.take()? {
                return serde_json::from_slice(&line).map(Some).map_err(|e| KubeError::Body(e.to_string()));
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(e)) => return Err(KubeError::Transport(format!("the watch broke off: {e}"))),
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.lines.0.extend_from_slice(data);
                    }
                }
            }
        }
    }
}

/// Bytes on their way to be lines.
#[derive(Debug, Default)]
struct Lines(BytesMut);

impl Lines {
    fn take(&mut self) -> Result<Option<BytesMut>, KubeError> {
        let Some(end) = self.0.iter().position(|b| *b == b'\n') else {
            if self.0.len() > MAX_LINE {
                return Err(KubeError::Body(format!("an event of more than {MAX_LINE} bytes")));
            }
            return Ok(None);
        };
        let line = self.0.split_to(end);
        self.0.advance(1);
        Ok(Some(line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_out_whole_however_they_arrive() {
        let mut lines = Lines::default();
        for byte in b"{\"a\":1}\n{\"b\"" {
            lines.0.extend_from_slice(&[*byte]);
        }
        assert_eq!(lines.take().unwrap().unwrap(), &b"{\"a\":1}"[..]);
        assert!(lines.take().unwrap().is_none());
        lines.0.extend_from_slice(b":2}\n");
        assert_eq!(lines.take().unwrap().unwrap(), &b"{\"b\":2}"[..]);
    }

    #[test]
    fn a_line_without_end_is_refused() {
        let mut lines = Lines::default();
        lines.0.resize(MAX_LINE + 1, b'x');
        assert!(lines.take().is_err());
    }
}
