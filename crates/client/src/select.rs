//! Which objects of a kind a cache holds.
//!
//! Selectors are kept as text: parsing them is the server's affair.

/// A subset of a kind's objects. Equal selects share one watch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Select {
    /// A label selector in API syntax, such as `app=web,tier in (a, b)`.
    pub labels: Option<String>,
    /// A field selector in API syntax, such as `spec.nodeName=node-1`.
    pub fields: Option<String>,
    /// Only this namespace.
    pub namespace: Option<String>,
}

impl Select {
    /// Every object of the kind.
    pub fn all() -> Self {
        Self::default()
    }

    /// Restricts by a label selector.
    #[must_use]
    pub fn labels(mut self, selector: impl Into<String>) -> Self {
        self.labels = Some(selector.into());
        self
    }

    /// Restricts by a field selector.
    #[must_use]
    pub fn fields(mut self, selector: impl Into<String>) -> Self {
        self.fields = Some(selector.into());
        self
    }

    /// Restricts to one namespace.
    #[must_use]
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = Some(namespace.into());
        self
    }
}
