//! Spreading endpoints over slices so that few slices change.
//!
//! An endpoint stays in the slice it is in; new ones fill slices that change anyway, then the
//! fullest with room, then new slices; slices left empty go. Pure, and knows nothing of Services.

use std::collections::HashMap;

use k8s_openapi::api::discovery::v1::Endpoint;

/// Most endpoints of a slice.
pub(super) const CAPACITY: usize = 100;

/// What becomes of the existing slices, in their order, and the contents of new ones.
#[derive(Debug, PartialEq)]
pub(super) struct Packed {
    /// For each existing slice: its endpoints; empty when it is not needed.
    pub(super) existing: Vec<Vec<Endpoint>>,
    /// Endpoints of slices to create.
    pub(super) new: Vec<Vec<Endpoint>>,
}

/// Identity of an endpoint across changes of its state: its pod and first address.
fn identity(endpoint: &Endpoint) -> (String, String) {
    let uid = endpoint.target_ref.as_ref().and_then(|target| target.uid.clone());
    (uid.unwrap_or_default(), endpoint.addresses.first().cloned().unwrap_or_default())
}

/// Places `desired` over `existing` slices.
pub(super) fn pack(existing: &[&[Endpoint]], desired: Vec<Endpoint>) -> Packed {
    let mut order = Vec::with_capacity(desired.len());
    let mut wanted = HashMap::with_capacity(desired.len());
    for endpoint in desired {
        let identity = identity(&endpoint);
        if wanted.insert(identity.clone(), endpoint).is_none() {
            order.push(identity);
        }
    }
    let mut slices: Vec<Vec<Endpoint>> = existing
        .iter()
        .map(|slice| {
            let kept = slice.iter().filter_map(|old| wanted.remove(&identity(old)));
            kept.take(CAPACITY).collect()
        })
        .collect();
    let mut rest: Vec<Endpoint> =
        order.iter().filter_map(|identity| wanted.remove(identity)).collect();
    let mut turn: Vec<usize> = (0..slices.len()).collect();
    turn.sort_by_key(|at| {
        let changes = slices[*at] != existing[*at];
        (!changes, CAPACITY - slices[*at].len())
    });
    for at in turn {
        // A slice about to go is not filled again while others have room.
        let room = (CAPACITY - slices[at].len()).min(rest.len());
        slices[at].extend(rest.drain(..room));
    }
    let mut new = Vec::new();
    while !rest.is_empty() {
        let many = rest.len().min(CAPACITY);
        new.push(rest.drain(..many).collect());
    }
    Packed { existing: slices, new }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(ip: &str, ready: bool) -> Endpoint {
        use k8s_openapi::api::discovery::v1::EndpointConditions;
        Endpoint {
            addresses: vec![ip.to_owned()],
            conditions: Some(EndpointConditions { ready: Some(ready), ..Default::default() }),
            ..Endpoint::default()
        }
    }

    fn many(range: std::ops::Range<usize>) -> Vec<Endpoint> {
        range.map(|number| endpoint(&format!("10.0.0.{number}"), true)).collect()
    }

    #[test]
    fn endpoints_stay_where_they_are() {
        let (a, b) = (many(0..2), many(2..4));
        let mut desired = many(0..4);
        desired[3] = endpoint("10.0.0.3", false);
        let packed = pack(&[&a, &b], desired);
        assert_eq!(packed.existing[0], a);
        assert_eq!(packed.existing[1][1], endpoint("10.0.0.3", false));
        assert!(packed.new.is_empty());
    }

    #[test]
    fn additions_go_to_a_slice_that_changes_anyway() {
        let (a, b) = (many(0..50), many(50..60));
        let packed =
            pack(&[&a, &b], many(0..59).into_iter().chain([endpoint("n", true)]).collect());
        assert_eq!((packed.existing[0].len(), packed.existing[1].len()), (50, 10));
    }

    #[test]
    fn a_hundred_endpoints_fill_a_slice() {
        let packed = pack(&[], many(0..250));
        assert_eq!(packed.new.iter().map(Vec::len).collect::<Vec<_>>(), [100, 100, 50]);
        let packed = pack(&[&many(0..100)], many(0..101));
        assert_eq!((packed.existing[0].len(), packed.new[0].len()), (100, 1));
        let packed = pack(&[&many(0..100), &many(100..101)], many(0..100));
        assert!(packed.existing[1].is_empty());
    }
}
