//! What levels are doing, for people: the dumps below `/debug/api_priority_and_fairness`, in upstream's columns.
//!
//! Requests are shown while they wait; those that run are only counted.

use jiff::Timestamp;
use registry::UserInfo;

use super::{Flow, Lane, counts::Reason};
use crate::authz::Attributes;

/// What is said of a request that waits.
pub(super) struct About {
    schema: String,
    flow: String,
    arrived: Timestamp,
    details: [String; 8],
}

impl About {
    pub(super) fn new(schema: &str, flow: &str, user: &UserInfo, asked: &Attributes<'_>) -> Self {
        let slash = if asked.group.is_empty() { "" } else { "/" };
        let version = format!("{}{slash}{}", asked.group, asked.version);
        let details = [
            &user.name,
            asked.verb,
            asked.path,
            asked.namespace,
            asked.name,
            &version,
            asked.resource,
            asked.subresource,
        ];
        Self {
            schema: schema.to_owned(),
            flow: flow.to_owned(),
            arrived: Timestamp::now(),
            details: details.map(str::to_owned),
        }
    }
}

/// The columns of each dump.
const LEVELS: [&str; 10] = [
    "PriorityLevelName",
    "ActiveQueues",
    "IsIdle",
    "IsQuiescing",
    "WaitingRequests",
    "ExecutingRequests",
    "DispatchedRequests",
    "RejectedRequests",
    "TimedoutRequests",
    "CancelledRequests",
];
const QUEUES: [&str; 9] = [
    "PriorityLevelName",
    "Index",
    "PendingRequests",
    "ExecutingRequests",
    "SeatsInUse",
    "NextDispatchR",
    "InitialSeatsSum",
    "MaxSeatsSum",
    "TotalWorkSum",
];
const REQUESTS: [&str; 18] = [
    "PriorityLevelName",
    "FlowSchemaName",
    "QueueIndex",
    "RequestIndexInQueue",
    "FlowDistingsher",
    "ArriveTime",
    "InitialSeats",
    "FinalSeats",
    "AdditionalLatency",
    "StartTime",
    "UserName",
    "Verb",
    "APIPath",
    "Namespace",
    "Name",
    "APIVersion",
    "Resource",
    "SubResource",
];

impl Flow {
    /// The dump of that name, if there is one.
    pub(crate) fn dump(&self, what: &str, details: bool) -> Option<String> {
        let config = self.config.load();
        let mut lanes: Vec<&Lane> = config.lanes.iter().map(|lane| &**lane).collect();
        lanes.sort_by(|left, right| left.name.cmp(&right.name));
        Some(match what {
            "dump_priority_levels" => {
                table(&LEVELS, lanes.into_iter().map(|lane| self.level(lane)).collect())
            }
            "dump_queues" => table(&QUEUES, lanes.into_iter().flat_map(queues).collect()),
            "dump_requests" => {
                let columns = if details { 18 } else { 10 };
                table(
                    &REQUESTS[..columns],
                    lanes.into_iter().flat_map(|lane| requests(lane, columns)).collect(),
                )
            }
            _ => return None,
        })
    }

    fn level(&self, lane: &Lane) -> Vec<String> {
        let config = self.config.load();
        let schemas = || config.schemas.iter().filter(|schema| schema.lane.name == lane.name);
        let sum = |of: &dyn Fn(&super::Counts) -> u64| -> u64 {
            schemas().map(|schema| of(&schema.counts)).sum()
        };
        let rejected = |reason| sum(&|counts| counts.rejected(reason));
        let (active, waiting) = lane.level.inspect(|queues| {
            let lengths = queues.iter().map(|queue| queue.waiting.len());
            (lengths.clone().filter(|length| *length > 0).count(), lengths.sum::<usize>())
        });
        let executing = sum(&|counts| counts.executing());
        let numbers = [
            executing,
            sum(&|counts| counts.dispatched()),
            rejected(Reason::QueueFull) + rejected(Reason::ConcurrencyLimit),
            rejected(Reason::TimeOut),
            rejected(Reason::Cancelled),
        ];
        let mut row = vec![lane.name.clone(), active.to_string()];
        row.extend([executing == 0 && waiting == 0, false].map(|yes| yes.to_string()));
        row.push(waiting.to_string());
        row.extend(numbers.iter().map(u64::to_string));
        row
    }
}

fn queues(lane: &Lane) -> Vec<Vec<String>> {
    lane.level.inspect(|queues| {
        let row = |(index, queue): (usize, &super::level::Queue)| {
            let seats = queue.seats.to_string();
            vec![
                lane.name.clone(),
                index.to_string(),
                queue.waiting.len().to_string(),
                queue.executing.to_string(),
                queue.taken.to_string(),
                format!("{:.8}ss", queue.next),
                seats.clone(),
                seats,
                format!("{:.8}ss", queue.work()),
            ]
        };
        queues.iter().enumerate().map(row).collect()
    })
}

fn requests(lane: &Lane, columns: usize) -> Vec<Vec<String>> {
    lane.level.inspect(|queues| {
        let mut rows = Vec::new();
        for (queue, held) in queues.iter().enumerate() {
            for (place, waiting) in held.waiting.iter().enumerate() {
                let about = &waiting.waiter.about;
                let mut row = vec![
                    lane.name.clone(),
                    about.schema.clone(),
                    queue.to_string(),
                    place.to_string(),
                    about.flow.clone(),
                    about.arrived.to_string(),
                    waiting.seats.to_string(),
                    "0".into(),
                    "0s".into(),
                    "0001-01-01T00:00:00Z".into(),
                ];
                row.extend(about.details.clone());
                row.truncate(columns);
                rows.push(row);
            }
        }
        rows
    })
}

/// Rows below their columns, aligned, with commas.
fn table(columns: &[&str], rows: Vec<Vec<String>>) -> String {
    let head = columns.iter().map(|&column| column.to_owned()).collect();
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(rows).collect();
    let width = |at: usize| rows.iter().map(|row| row[at].chars().count() + 2).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns.len()).map(|at| width(at).max(8)).collect();
    let mut out = String::new();
    for row in &rows {
        let (last, rest) = row.split_last().map_or(("", &row[..]), |(last, rest)| (last, rest));
        for (cell, width) in rest.iter().zip(&widths) {
            out.push_str(&format!("{:width$}", format!("{cell},")));
        }
        out.push_str(last);
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let rows = vec![vec!["a".to_owned(), "longer than it".to_owned(), "x".to_owned()]];
        assert_eq!(
            table(&["Name", "B", "C"], rows),
            "Name,   B,              C\na,      longer than it, x\n"
        );
    }
}
