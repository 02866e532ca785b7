//! How many seats a request is worth. Pure.
//!
//! Lists, and the beginnings of watches that send what is there, count by the bytes they go through. A write is one
//! seat while it runs; if many watch, some are kept for a moment afterwards, while the change is sent to them.

use std::time::Duration;

use registry::Size;

use super::level::Seats;
use crate::request::Query;

/// Watches that make a seat. Upstream says 10; here a change is encoded once for all of them.
const WATCHES: u32 = 100;
/// How long a seat is kept for so many.
const SENDING: Duration = Duration::from_millis(5);
/// The most seats that are kept after a write (upstream's limit).
const MOST_KEPT: u32 = 10;

/// Bytes that make a seat (upstream's measure).
const SEAT: u64 = 100_000;
/// Lists are streamed from memory: more than this is never held at once.
const MOST_HELD: u64 = 1_000_000;

/// The seats of a request on a collection of this size.
pub(super) fn seats(verb: &str, named: bool, query: &Query, size: Option<Size>) -> u32 {
    let Some(size) = size.filter(|_| !named && reads_collection(verb, query)) else { return 1 };
    let limit = query.get("limit").and_then(|limit| limit.parse::<u64>().ok());
    let objects = limit.filter(|limit| *limit > 0).map_or(size.objects, |l| l.min(size.objects));
    let average = size.bytes.checked_div(size.objects).unwrap_or(0);
    let held = objects.saturating_mul(average).min(MOST_HELD);
    u32::try_from(held.div_ceil(SEAT)).unwrap_or(u32::MAX).max(1)
}

/// The seats of a write that so many watches see, on a level where a request may have `widest`.
pub(super) fn write(watches: u32, widest: u32) -> Seats {
    if watches < WATCHES {
        return Seats::during(1);
    }
    let wanted = watches.div_ceil(WATCHES);
    let kept = wanted.min(MOST_KEPT).min(widest).max(1);
    // The same work, narrower and longer.
    Seats { during: kept, kept, after: SENDING * wanted / kept }
}

fn reads_collection(verb: &str, query: &Query) -> bool {
    let from_scratch = || matches!(query.get("resourceVersion"), None | Some("" | "0"));
    match verb {
        "list" => true,
        "watch" => match query.get("sendInitialEvents") {
            Some(_) => query.flag("sendInitialEvents"),
            None => from_scratch(),
        },
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(verb: &str, query: &str, named: bool, expected: u32) {
        let size = Size { objects: 1000, bytes: 400_000 };
        let query = Query::parse(query);
        assert_eq!(seats(verb, named, &query, Some(size)), expected, "{verb} {query:?}");
    }

    #[test]
    fn writes_count_by_their_watches() {
        let kept = |watches, widest| {
            let Seats { during, kept, after } = write(watches, widest);
            (during, kept, after.as_millis())
        };
        assert_eq!(kept(99, 10), (1, 0, 0));
        assert_eq!(kept(250, 10), (3, 3, 5));
        assert_eq!(kept(2000, u32::MAX), (10, 10, 10));
        assert_eq!(kept(2000, 2), (2, 2, 50));
    }

    #[test]
    fn collections_count_by_their_bytes() {
        check("list", "", false, 4);
        check("list", "limit=500", false, 2);
        check("list", "limit=0", false, 4);
        check("list", "", true, 1);
        check("get", "", false, 1);
        check("watch", "", false, 4);
        check("watch", "resourceVersion=0", false, 4);
        check("watch", "resourceVersion=77", false, 1);
        check("watch", "resourceVersion=77&sendInitialEvents=true", false, 4);
        check("watch", "sendInitialEvents=false", false, 1);
        check("create", "", false, 1);
        let huge = Size { objects: 1_000_000, bytes: u64::MAX };
        assert_eq!(seats("list", false, &Query::default(), Some(huge)), 10);
        assert_eq!(seats("list", false, &Query::default(), None), 1);
    }
}
