//! Label and field selectors against headers: what a list or watch wants to see.

use meta::{FieldSelector, Selector, Status};

use crate::header::Header;
use crate::object::split_key;
use crate::params::Params;
use crate::row::Row;

/// The objects a read is about, by labels and fields.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    labels: Selector,
    fields: Vec<Term>,
}

#[derive(Clone, Debug)]
struct Term {
    field: Field,
    value: String,
    negated: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Name,
    Namespace,
    /// Position among the row's selectable fields.
    Other(usize),
}

impl Selection {
    /// Parses the selectors of a query, and a name in the path as one more.
    ///
    /// # Errors
    /// 400 with Kubernetes' words for what cannot be parsed or selected by.
    pub(crate) fn parse(row: &Row, params: &Params, name: Option<&str>) -> Result<Self, Status> {
        let labels = Selector::parse(&params.label_selector)
            .map_err(|error| Status::bad_request(error.to_string()))?;
        let parsed = FieldSelector::parse(&params.field_selector)
            .map_err(|error| Status::bad_request(error.to_string()))?;
        let mut fields = Vec::with_capacity(parsed.terms.len());
        for term in parsed.terms {
            let field = field(row, &term.field)?;
            fields.push(Term { field, value: term.value, negated: term.negated });
        }
        if let Some(name) = name {
            fields.push(Term { field: Field::Name, value: name.to_owned(), negated: false });
        }
        Ok(Self { labels, fields })
    }

    /// Whether everything matches.
    pub(crate) fn is_everything(&self) -> bool {
        self.labels.is_empty() && !self.labels.is_nothing() && self.fields.is_empty()
    }

    /// The one name that can match, if the selection names it.
    pub(crate) fn name(&self) -> Option<&str> {
        self.exact(Field::Name)
    }

    /// The one namespace that can match, if the selection names it.
    pub(crate) fn namespace(&self) -> Option<&str> {
        self.exact(Field::Namespace)
    }

    /// The node whose objects alone can match, if there is an index of those and the selection names one.
    pub(crate) fn node(&self, row: &Row) -> Option<&str> {
        self.exact(Field::Other(row.by_node?))
    }

    fn exact(&self, field: Field) -> Option<&str> {
        let term = self.fields.iter().find(|t| t.field == field && !t.negated)?;
        Some(&term.value)
    }

    /// Whether the object at `key` with that header is selected.
    pub(crate) fn matches(&self, key: &str, header: &Header) -> bool {
        self.fields.iter().all(|term| {
            let value = match term.field {
                Field::Name => split_key(key).1,
                Field::Namespace => split_key(key).0,
                Field::Other(index) => header.field(index),
            };
            (value == term.value) != term.negated
        }) && (self.labels.is_empty() && !self.labels.is_nothing()
            || self.labels.matches_with(|label| header.label(label)))
    }
}

fn field(row: &Row, name: &str) -> Result<Field, Status> {
    match name {
        "metadata.name" => return Ok(Field::Name),
        "metadata.namespace" => return Ok(Field::Namespace),
        _ => {}
    }
    // An old spelling that clients still use.
    let path = if name == "spec.host" { "spec.nodeName" } else { name };
    if let Some(index) = row.selectable.iter().position(|f| f == path) {
        return Ok(Field::Other(index));
    }
    Err(Status::bad_request(if row.selectable.is_empty() {
        format!(
            "{name:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
        )
    } else {
        format!("field label not supported: {name}")
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::row::Rows;

    fn check(plural: &str, labels: &str, fields: &str) -> Result<bool, String> {
        let rows = Rows::builtin();
        let row = rows.get("", "v1", plural).expect("row");
        let params = Params {
            label_selector: labels.to_owned(),
            field_selector: fields.to_owned(),
            ..Params::default()
        };
        let selection = Selection::parse(row, &params, None).map_err(|s| s.message)?;
        let object = json!({
            "metadata": {"labels": {"app": "web"}},
            "spec": {"nodeName": "n1"}, "status": {"phase": "Running"},
        });
        let header = Header::of(&object, &row.selectable);
        Ok(selection.matches(&format!("/registry/{plural}/default/web-1"), &header))
    }

    #[test]
    fn selects_by_labels_and_fields() {
        assert_eq!(check("pods", "", ""), Ok(true));
        assert_eq!(check("pods", "app=web,tier!=db", "spec.nodeName=n1"), Ok(true));
        assert_eq!(check("pods", "app in (a, b)", ""), Ok(false));
        assert_eq!(check("pods", "", "status.phase!=Running"), Ok(false));
        assert_eq!(check("pods", "", "metadata.name=web-1,metadata.namespace=default"), Ok(true));
    }

    #[test]
    fn unknown_fields_are_refused() {
        assert_eq!(check("pods", "", "spec.x=1"), Err("field label not supported: spec.x".into()));
        assert_eq!(
            check("configmaps", "", "data.x=1"),
            Err("\"data.x\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"".into())
        );
    }
}
