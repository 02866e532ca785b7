//! Node selector terms, compiled once a pod. Knows labels and names of nodes, nothing else.

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm};
use meta::{Operator, Requirement};

use crate::node::NodeFacts;

/// One term: all its requirements must hold. One without any matches nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    labels: Vec<Requirement>,
    /// Requirements on the node's name, the only field there is.
    names: Vec<Requirement>,
    broken: bool,
}

impl Term {
    /// Compiles a term; one that cannot be understood matches nothing.
    #[must_use]
    pub fn new(term: &NodeSelectorTerm) -> Self {
        let compile = |list: &Option<Vec<NodeSelectorRequirement>>| -> Vec<Option<Requirement>> {
            list.iter().flatten().map(requirement).collect()
        };
        let labels = compile(&term.match_expressions);
        let fields = compile(&term.match_fields);
        let understood = labels.iter().all(Option::is_some)
            && fields.iter().all(|one| one.as_ref().is_some_and(|r| r.key == "metadata.name"));
        Self {
            labels: labels.into_iter().flatten().collect(),
            names: fields.into_iter().flatten().collect(),
            broken: !understood,
        }
    }

    /// Whether it says nothing at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.names.is_empty()
    }

    /// Whether all requirements hold for `node`.
    #[must_use]
    pub fn matches(&self, node: &NodeFacts) -> bool {
        !self.broken
            && !self.is_empty()
            && self.labels.iter().all(|one| one.matches(node.label(&one.key)))
            && self.names.iter().all(|one| one.matches(Some(&node.name)))
    }

    /// The names it restricts itself to, if it does so by name alone or among other things.
    #[must_use]
    pub fn named(&self) -> Option<Vec<&str>> {
        let by_name = self.names.iter().find(|one| one.operator == Operator::In)?;
        Some(by_name.values.iter().map(String::as_str).collect())
    }
}

fn requirement(one: &NodeSelectorRequirement) -> Option<Requirement> {
    let operator = match one.operator.as_str() {
        "In" => Operator::In,
        "NotIn" => Operator::NotIn,
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        "Gt" => Operator::GreaterThan,
        "Lt" => Operator::LessThan,
        _ => return None,
    };
    Some(Requirement {
        key: one.key.clone(),
        operator,
        values: one.values.clone().unwrap_or_default(),
    })
}
