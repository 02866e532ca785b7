//! Bytes and JSON, damaged: a little, so that decoders get far into them, or badly.

use rand::Rng as _;
use rand::seq::IndexedRandom as _;
use serde_json::{Map, Value, json};

use crate::Rng;

/// Bytes that mean something to some decoder.
const TOKENS: &[&[u8]] = &[
    b"\0",
    b"\xff",
    b"\xff\xff\xff\xff",
    b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
    b"\x7f\xff\xff\xff",
    b"\xc3\x28",
    b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
    b"\xef\xbb\xbf",
    b"\xe2\x80\xa8",
    b"\"",
    b"\\",
    b"\\u0000",
    b"\\ud800",
    b"\\udc00\\ud800",
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b"null",
    b"true",
    b"1e999",
    b"-1e-999",
    b"-0",
    b"9223372036854775808",
    b"18446744073709551616",
    b"0.00000000000000000001",
    b"NaN",
    b"'",
    b"\n",
    b"\n- ",
    b"\r\n",
    b"\t",
    b" ",
    b"? ",
    b"!!binary ",
    b"!!float ",
    b"&a ",
    b"*a",
    b"<<: *a",
    b"---\n",
    b"...\n",
    b"|\n",
    b"#",
    b"%YAML 1.2\n",
    b"/",
    b"~1",
    b"~0",
    b"~",
    b"-",
    b".",
    b"..",
    b"%00",
    b"%",
    b"=",
    b"!=",
    b" in (",
    b" notin (",
    b")",
    b"<",
    b">",
    b"!",
    b"Ki",
    b"E",
    b"e",
    b"n",
    b"+",
    b"0",
    b"\x0a",
    b"\x12",
    b"\x00\x00\x00\x01",
];

/// Text that is hard to bear somewhere.
const TEXTS: &[&str] = &[
    "",
    " ",
    "\0",
    "a\0b",
    "\u{feff}",
    "\u{202e}",
    "é",
    "🦀",
    "-",
    ".",
    "..",
    "/",
    "../..",
    "a/b/c",
    "A",
    "a_b",
    "0",
    "-1",
    "1e999",
    "9223372036854775808",
    "1Ki",
    "1e-999999999",
    "999999999999999999999E",
    "true",
    "null",
    "2024-02-30T25:61:61Z",
    "0000-00-00T00:00:00Z",
    "9999-12-31T23:59:59.999999999+23:59",
    "====",
    "AA==",
    "%%%",
    "300.1.2.3",
    "::1%eth0",
    "10.0.0.0/33",
    "*",
    "*.",
    "http://[::1",
    "$(A)",
    "{{.}}",
    "\u{1b}[0m",
    "<nil>",
    "@yearly",
    "* * * * * *",
    "k:{\"name\":",
    "f:",
    "-----BEGIN CERTIFICATE-----",
];

/// Bytes with a few things changed: one seed, parts of others.
#[must_use]
pub fn bytes(rng: &mut Rng, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut out = seeds.choose(rng).cloned().unwrap_or_default();
    for _ in 0..rng.random_range(1..5) {
        step(rng, &mut out, seeds);
        out.truncate(1 << 16);
    }
    out
}

fn step(rng: &mut Rng, out: &mut Vec<u8>, seeds: &[Vec<u8>]) {
    let part = range(rng, out.len());
    match rng.random_range(0..9) {
        0 => out.truncate(part.start),
        1 => drop(out.drain(part)),
        2 => {
            let copied = out[part.clone()].to_vec();
            drop(out.splice(part.start..part.start, copied));
        }
        3 => {
            let other = seeds.choose(rng).map_or(&[][..], Vec::as_slice);
            let piece = other[range(rng, other.len())].to_vec();
            drop(out.splice(part, piece));
        }
        4 => {
            // Many of the same: what is read with a loop or by recursion.
            let piece = out[part.start..part.end.min(part.start + 16)].to_vec();
            let many = piece.repeat(rng.random_range(1..500));
            drop(out.splice(part.start..part.start, many));
        }
        5 | 6 => {
            let token = TOKENS.choose(rng).copied().unwrap_or_default();
            let end =
                if rng.random() { part.start } else { out.len().min(part.start + token.len()) };
            drop(out.splice(part.start..end, token.iter().copied()));
        }
        _ => {
            if let Some(byte) = out.get_mut(part.start) {
                *byte =
                    if rng.random() { *byte ^ 1 << rng.random_range(0..8) } else { rng.random() };
            }
        }
    }
}

/// A part of something of that length, short more often than long.
fn range(rng: &mut Rng, length: usize) -> std::ops::Range<usize> {
    let start = rng.random_range(0..=length);
    let most = if rng.random_bool(0.8) { 32.min(length - start) } else { length - start };
    start..start + rng.random_range(0..=most)
}

/// Text, damaged; bytes that are none any more become the replacement character.
#[must_use]
pub fn text(rng: &mut Rng, seeds: &[&str]) -> String {
    let seeds: Vec<Vec<u8>> = seeds.iter().map(|seed| seed.as_bytes().to_vec()).collect();
    String::from_utf8_lossy(&bytes(rng, &seeds)).into_owned()
}

/// A value that stands nowhere well.
#[must_use]
pub fn odd(rng: &mut Rng) -> Value {
    match rng.random_range(0..14) {
        0 => Value::Null,
        1 => rng.random::<bool>().into(),
        2 => rng.random::<i64>().into(),
        3 => u64::MAX.into(),
        4 => i64::MIN.into(),
        5 => rng.random::<i32>().into(),
        // Of few digits: others may come back with another last one.
        6 => json!(f64::from(rng.random::<i16>()) / 8.0),
        7 => json!([]),
        8 => json!({}),
        9 => json!([null, {"name": "a"}, 1]),
        10 => json!({"": null, "name": {"name": []}, "$patch": "delete"}),
        11 => "x".repeat(rng.random_range(0..400)).into(),
        12 => nested(rng.random_range(2..150)),
        _ => TEXTS.choose(rng).copied().unwrap_or_default().into(),
    }
}

/// Arrays and objects within each other.
#[must_use]
pub fn nested(depth: usize) -> Value {
    (0..depth).fold(
        Value::Null,
        |inner, level| if level % 2 == 0 { json!([inner]) } else { json!({"a": inner}) },
    )
}

/// JSON with some places changed.
#[must_use]
pub fn json(rng: &mut Rng, value: &Value) -> Value {
    let mut out = value.clone();
    for _ in 0..rng.random_range(1..4) {
        let other = out.clone();
        let place = descend(rng, &mut out);
        match rng.random_range(0..6) {
            0 | 1 => *place = odd(rng),
            // A part of itself in another place.
            2 => {
                let mut other = other;
                *place = descend(rng, &mut other).take();
            }
            3 => {
                let inner = place.take();
                *place = if rng.random() { json!([inner]) } else { json!({"a": inner}) };
            }
            _ => within(rng, place),
        }
    }
    out
}

/// Some place in a value; each is as likely to be a leaf as not.
fn descend<'v>(rng: &mut Rng, value: &'v mut Value) -> &'v mut Value {
    let length = match value {
        Value::Array(list) => list.len(),
        Value::Object(map) => map.len(),
        _ => 0,
    };
    if length == 0 || rng.random_bool(0.15) {
        return value;
    }
    let at = rng.random_range(0..length);
    match value {
        Value::Array(list) => descend(rng, &mut list[at]),
        Value::Object(map) => match map.values_mut().nth(at) {
            Some(inner) => descend(rng, inner),
            None => unreachable!("an object has as many values as it is long"),
        },
        _ => unreachable!("only lists and objects have a length"),
    }
}

/// Changes what a list or object holds, or a text or number a little.
fn within(rng: &mut Rng, place: &mut Value) {
    match place {
        Value::Array(list) => match list.choose(rng).cloned() {
            Some(item) if rng.random() => list.push(item),
            _ => drop(list.pop()),
        },
        Value::Object(map) => change(rng, map),
        Value::String(text) => *text = self::text(rng, &[text.as_str()]),
        Value::Number(_) => *place = json!(rng.random_range(-2..70_000)),
        other => *other = odd(rng),
    }
}

fn change(rng: &mut Rng, map: &mut Map<String, Value>) {
    let keys: Vec<String> = map.keys().cloned().collect();
    let Some(key) = keys.choose(rng) else { return };
    match rng.random_range(0..3) {
        0 => drop(map.remove(key)),
        1 => {
            let value = map.remove(key).unwrap_or_default();
            map.insert(text(rng, &[key.as_str()]), value);
        }
        _ => drop(map.insert(TEXTS.choose(rng).copied().unwrap_or_default().to_owned(), odd(rng))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::campaign;

    #[test]
    fn mutations_change_and_stay_small() {
        let object = json!({"metadata": {"name": "a", "labels": {"b": "c"}}, "spec": {"ports": [{"port": 80}]}});
        let (mut cases, mut changed) = (0, 0);
        campaign("mutations", 500, |rng| {
            cases += 1;
            changed += u32::from(json(rng, &object) != object);
            assert!(bytes(rng, &[object.to_string().into_bytes()]).len() <= 1 << 16);
        });
        assert!(changed * 10 > cases * 9, "{changed} of {cases}");
    }
}
