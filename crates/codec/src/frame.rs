//! Frames of a watch: one JSON object a line.

/// An event around an object that is already JSON.
#[must_use]
pub fn frame(event: &str, object: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(object.len() + event.len() + 32);
    frame.extend_from_slice(b"{\"type\":\"");
    frame.extend_from_slice(event.as_bytes());
    frame.extend_from_slice(b"\",\"object\":");
    frame.extend_from_slice(object);
    frame.extend_from_slice(b"}\n");
    frame
}

#[cfg(test)]
mod tests {
    #[test]
    fn is_one_line() {
        assert_eq!(
            super::frame("ADDED", b"{\"a\":1}"),
            b"{\"type\":\"ADDED\",\"object\":{\"a\":1}}\n"
        );
    }
}
