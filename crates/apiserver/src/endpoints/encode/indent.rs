//! JSON for people: two spaces a level. Works on text that is known to be JSON without white space
//! between its tokens, piece by piece, without parsing it.

/// Indents a whole text.
pub(super) fn whole(json: &[u8]) -> Vec<u8> {
    Indent::default().piece(json)
}

/// Where in a text an indenter is.
#[derive(Default)]
pub(super) struct Indent {
    depth: usize,
    /// Within a string, and whether its next byte is escaped.
    string: Option<bool>,
    /// The last byte opened an object or a list.
    opened: bool,
}

impl Indent {
    /// The next piece, indented.
    pub(super) fn piece(&mut self, json: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(json.len() + json.len() / 2);
        for byte in json {
            self.byte(*byte, &mut out);
        }
        out
    }

    fn byte(&mut self, byte: u8, out: &mut Vec<u8>) {
        if let Some(escaped) = self.string {
            out.push(byte);
            self.string = match byte {
                _ if escaped => Some(false),
                b'"' => None,
                byte => Some(byte == b'\\'),
            };
            return;
        }
        let closes = matches!(byte, b'}' | b']');
        let opened = std::mem::take(&mut self.opened);
        if closes {
            self.depth = self.depth.saturating_sub(1);
        }
        if opened != closes {
            self.line(out);
        }
        out.push(byte);
        match byte {
            b'{' | b'[' => {
                self.depth += 1;
                self.opened = true;
            }
            b',' => self.line(out),
            b':' => out.push(b' '),
            b'"' => self.string = Some(false),
            _ => {}
        }
    }

    fn line(&self, out: &mut Vec<u8>) {
        out.push(b'\n');
        out.resize(out.len() + 2 * self.depth, b' ');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn is_what_a_parser_would_print() {
        let value = json!({
            "a": [], "b": {}, "c": [1, [2, {"d": null}], "x\"y\\"], "e": {"f": "{[,:]}\n", "g": -1.5},
        });
        for value in [value, json!([]), json!("text"), json!(7), Value::Null] {
            let text = value.to_string();
            let expected = serde_json::to_string_pretty(&value).expect("JSON");
            assert_eq!(String::from_utf8_lossy(&whole(text.as_bytes())), expected);
            let mut indent = Indent::default();
            let pieces = text.as_bytes().chunks(3).flat_map(|piece| indent.piece(piece));
            assert_eq!(pieces.collect::<Vec<u8>>(), expected.as_bytes());
        }
    }
}
