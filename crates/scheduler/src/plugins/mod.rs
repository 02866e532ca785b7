//! The plugins: a file each, a line each in [`ALL`].

mod balanced_allocation;
mod default_binder;
mod node_affinity;
mod node_name;
mod node_ports;
mod node_unschedulable;
mod priority_sort;
mod resources_fit;
mod scheduling_gates;
mod taint_toleration;
#[cfg(test)]
mod tests;

use crate::plugin::{Bind, MAX_SCORE, Plugin};

/// Every plugin that filters, scores or gates, in the order they are asked. At most 32.
pub static ALL: [Plugin; 8] = [
    scheduling_gates::PLUGIN,
    node_unschedulable::PLUGIN,
    node_name::PLUGIN,
    taint_toleration::PLUGIN,
    node_affinity::PLUGIN,
    node_ports::PLUGIN,
    resources_fit::PLUGIN,
    balanced_allocation::PLUGIN,
];

/// The order of the queue.
pub type Order = priority_sort::PrioritySort;

/// How decisions are made known.
pub static BINDER: &dyn Bind = &default_binder::DefaultBinder;

/// Scales scores so that the highest is [`MAX_SCORE`]; `reverse` makes the lowest the best.
pub(crate) fn scale(scores: &mut [i64], reverse: bool) {
    let highest = scores.iter().copied().max().unwrap_or(0);
    for score in scores {
        let scaled = if highest == 0 { 0 } else { *score * MAX_SCORE / highest };
        *score = if reverse { MAX_SCORE - scaled } else { scaled };
    }
}
