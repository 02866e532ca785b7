//! The pod state machine: `(state, event, now) -> (state, effects)`, and the API status as a projection of the state.
//! Pure: no clock, no I/O, no knowledge of how effects are carried out.

mod active;
mod adopt;
mod backoff;
mod conditions;
mod ending;
mod ephemeral;
mod event;
mod machine;
mod model;
mod phase;
mod status;

pub(crate) use backoff::BackOff;
pub(crate) use ephemeral::as_container;
pub(crate) use event::{
    Effect, Event, EventType, ImageReady, ProbeKind, PullProblem, Seen, SeenContainer, SeenPhase,
    SeenSandbox, StartProblem, Started, StopPlan,
};
pub(crate) use machine::{new, rejected, step, wake_at};
pub(crate) use model::{Cleaning, Container, Exit, Life, Phase, PodState, Role, Running, Sandbox};
pub(crate) use phase::restart_policy;
pub(crate) use status::project;

#[cfg(test)]
mod tests;
