//! Pods with scheduling gates wait until all are taken off (KEP-3521).

use crate::event::Event;
use crate::plugin::{Gate, Plugin, Reason};
use crate::pod::PodInfo;

pub(super) const PLUGIN: Plugin = Plugin::new("SchedulingGates")
    .gate(&SchedulingGates)
    .wakes(|_, event| matches!(event, Event::PodChanged));

struct SchedulingGates;

impl Gate for SchedulingGates {
    fn holds(&self, pod: &PodInfo) -> Option<Reason> {
        let gates = &pod.wants.gates;
        (!gates.is_empty())
            .then(|| format!("waiting for scheduling gates: [{}]", gates.join(" ")).into())
    }
}
