//! Blocks of PEM text: kind, whether there are headers, and the bytes. Refuses to know what the bytes mean.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// One block.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Block<'a> {
    pub(super) kind: &'a str,
    pub(super) has_headers: bool,
    pub(super) bytes: Vec<u8>,
}

/// The blocks in a text; what stands between them does not count, nor does a block that cannot be read.
pub(super) fn blocks(text: &str) -> impl Iterator<Item = Block<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        loop {
            let (kind, body) = begin(&mut rest)?;
            let end = format!("-----END {kind}-----");
            let Some((body, after)) = body.split_once(end.as_str()) else { continue };
            let Some(block) = read(kind, body) else { continue };
            rest = after;
            return Some(block);
        }
    })
}

/// Moves behind the next line that begins a block, and gives what it says.
fn begin<'a>(rest: &mut &'a str) -> Option<(&'a str, &'a str)> {
    const BEGIN: &str = "-----BEGIN ";
    loop {
        let text = *rest;
        let at = text.find(BEGIN)?;
        let starts_line = at == 0 || text.as_bytes()[at - 1] == b'\n';
        let after = &text[at + BEGIN.len()..];
        *rest = after;
        let line = after.lines().next().unwrap_or_default();
        if let (true, Some(kind)) = (starts_line, line.trim_end().strip_suffix("-----")) {
            return Some((kind, &after[line.len()..]));
        }
    }
}

fn read<'a>(kind: &'a str, body: &str) -> Option<Block<'a>> {
    let lines = || body.lines().map(str::trim);
    let has_headers = lines().any(|line| line.contains(':'));
    let text: String = lines().filter(|line| !line.contains(':')).collect();
    Some(Block { kind, has_headers, bytes: STANDARD.decode(text).ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_found_among_other_text() {
        let text = "hello\n-----BEGIN A-----\nbroken!\n-----END A-----\n-----BEGIN B C-----\r\nK: v\r\n\r\neHl6\r\n-----END B C-----\n-----BEGIN D-----\neA==\n-----END D-----";
        let found: Vec<Block<'_>> = blocks(text).collect();
        assert_eq!(
            found,
            [
                Block { kind: "B C", has_headers: true, bytes: b"xyz".to_vec() },
                Block { kind: "D", has_headers: false, bytes: b"x".to_vec() },
            ]
        );
        assert_eq!(blocks("-----BEGIN A-----\neA==\n").count(), 0);
        assert_eq!(blocks("x -----BEGIN A-----\neA==\n-----END A-----").count(), 0);
    }
}
