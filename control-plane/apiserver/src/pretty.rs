//! Indents JSON while it streams: two spaces, as Go's encoder does.

use bytes::{BufMut, Bytes, BytesMut};

/// The state between two chunks.
#[derive(Debug, Default)]
pub struct Indenter {
    depth: usize,
    in_string: bool,
    escaped: bool,
    /// An opening bracket whose first element has not been seen.
    opened: bool,
}

impl Indenter {
    pub fn push(&mut self, chunk: &[u8]) -> Bytes {
        let mut out = BytesMut::with_capacity(chunk.len() * 3 / 2);
        for &b in chunk {
            if self.in_string {
                out.put_u8(b);
                match b {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.in_string = false,
                    _ => {}
                }
                continue;
            }
            match b {
                // Whitespace of the source, the padding of revisions too, goes.
                b' ' | b'\t' | b'\r' | b'\n' => continue,
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    if !std::mem::take(&mut self.opened) {
                        self.line(&mut out);
                    }
                    out.put_u8(b);
                    continue;
                }
                _ => {}
            }
            if std::mem::take(&mut self.opened) {
                self.line(&mut out);
            }
            out.put_u8(b);
            match b {
                b'{' | b'[' => {
                    self.depth += 1;
                    self.opened = true;
                }
                b',' => self.line(&mut out),
                b':' => out.put_u8(b' '),
                b'"' => self.in_string = true,
                _ => {}
            }
        }
        out.freeze()
    }

    fn line(&self, out: &mut BytesMut) {
        out.put_u8(b'\n');
        for _ in 0..self.depth {
            out.put_slice(b"  ");
        }
    }
}

/// A whole document.
pub fn indent(text: &[u8]) -> Bytes {
    let mut out = BytesMut::from(&Indenter::default().push(text)[..]);
    out.put_u8(b'\n');
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_indent_as_the_whole_does() {
        let text = br#"{"a":{},"b":[1,2,{"c":"x:{\"y\"}"}],"rv":"7"   ,"d":[]}"#;
        let want = "{\n  \"a\": {},\n  \"b\": [\n    1,\n    2,\n    {\n      \"c\": \"x:{\\\"y\\\"}\"\n    }\n  ],\n  \"rv\": \"7\",\n  \"d\": []\n}\n";
        assert_eq!(indent(text), want.as_bytes());
        let mut indenter = Indenter::default();
        let parts: Vec<u8> = text.chunks(3).flat_map(|c| indenter.push(c).to_vec()).collect();
        assert_eq!(parts, want.trim_end().as_bytes());
    }
}
