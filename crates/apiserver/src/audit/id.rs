//! Ids of requests, as answers and audit events carry them.

use std::sync::{
    LazyLock,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use http::{HeaderMap, HeaderValue};

/// The longest id that is taken from a client.
const LONGEST: usize = 64;

/// The id a client gave its request, or a new one.
pub(crate) fn of(headers: &HeaderMap) -> HeaderValue {
    let given = headers.get("audit-id").filter(|id| (1..=LONGEST).contains(&id.len()));
    given.filter(|id| id.to_str().is_ok()).cloned().unwrap_or_else(new)
}

/// A random UUID in form; in fact a number that is never used twice, scrambled. It is no secret, and made for every
/// request: asking the kernel for randomness each time would cost more than all the rest of it.
fn new() -> HeaderValue {
    static FIRST: LazyLock<u64> = LazyLock::new(|| {
        let random = meta::names::uid().replace('-', "");
        u64::from_str_radix(random.get(..16).unwrap_or_default(), 16).unwrap_or_default()
    });
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = FIRST.wrapping_add(NEXT.fetch_add(1, Relaxed));
    let (high, low) = (scrambled(number), scrambled(!number));
    let high = high & !0xf000 | 0x4000;
    let low = low & !(0b11 << 62) | 0b10 << 62;
    let mut text = [b'-'; 36];
    let places = (0..36).filter(|place| !matches!(place, 8 | 13 | 18 | 23));
    for (digit, place) in places.enumerate() {
        let word = if digit < 16 { high } else { low };
        text[place] = b"0123456789abcdef"[(word >> (60 - digit % 16 * 4) & 0xf) as usize];
    }
    HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("unknown"))
}

/// A bijection that leaves no pattern (splitmix64).
fn scrambled(number: u64) -> u64 {
    let mut mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_the_form_of_uuids_and_are_different() {
        let ids: std::collections::HashSet<HeaderValue> = (0..1000).map(|_| new()).collect();
        assert_eq!(ids.len(), 1000);
        for id in ids {
            let parts: Vec<&str> = id.to_str().expect("text").split('-').collect();
            assert_eq!(parts.iter().map(|part| part.len()).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
            assert!(parts[2].starts_with('4') && "89ab".contains(&parts[3][..1]), "{parts:?}");
        }
    }

    #[test]
    fn clients_may_bring_their_own() {
        let mut headers = HeaderMap::new();
        headers.insert("audit-id", HeaderValue::from_static("mine"));
        assert_eq!(of(&headers), "mine");
        headers.insert("audit-id", "x".repeat(65).parse().expect("header"));
        assert_eq!(of(&headers).len(), 36);
    }
}
