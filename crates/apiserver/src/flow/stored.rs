//! PriorityLevelConfigurations, read from their objects. Pure.

use serde::Deserialize;

use super::{level::Kind, limits::Shares, queues::Shape, schema::Metadata};

/// A PriorityLevelConfiguration as stored.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Stored {
    pub(super) metadata: Metadata,
    spec: StoredSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct StoredSpec {
    r#type: String,
    limited: Option<Limited>,
    exempt: Option<Shares>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Limited {
    #[serde(flatten)]
    shares: Shares,
    limit_response: Response,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Response {
    r#type: String,
    queuing: Option<Queuing>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Queuing {
    queues: usize,
    hand_size: usize,
    queue_length_limit: usize,
}

impl Stored {
    /// What the object says, if it makes sense.
    pub(super) fn read(&self) -> Option<(Kind, Shares)> {
        let exempt = self.metadata.name == "exempt";
        match (self.spec.r#type.as_str(), &self.spec.limited) {
            ("Exempt", None) if exempt => {
                Some((Kind::Exempt, self.spec.exempt.clone().unwrap_or_default()))
            }
            ("Limited", Some(limited)) if !exempt => {
                let kind =
                    match (limited.limit_response.r#type.as_str(), &limited.limit_response.queuing)
                    {
                        ("Reject", None) => Kind::Reject,
                        ("Queue", Some(queuing)) => Kind::Queue(Shape {
                            queues: queuing.queues.clamp(1, 1 << 16),
                            hand: queuing.hand_size.max(1),
                            length: queuing.queue_length_limit.max(1),
                        }),
                        _ => return None,
                    };
                let shares = limited.shares.clone();
                // Unsaid is thirty, as defaulting has it.
                let nominal = shares.nominal_concurrency_shares.or(Some(30));
                Some((kind, Shares { nominal_concurrency_shares: nominal, ..shares }))
            }
            _ => None,
        }
    }
}
