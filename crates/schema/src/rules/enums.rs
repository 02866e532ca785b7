//! Fields of kinds without rules of their own that hold one of a few words, or a list of them.

/// The words a field of a type may hold, by the type's short name.
pub(super) fn of(owner: &str, field: &str) -> Option<&'static [&'static str]> {
    Some(match (owner, field) {
        ("CustomResourceDefinitionSpec", "scope") => &["Cluster", "Namespaced"],
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use crate::types;

    /// A misspelt row would check nothing.
    #[test]
    fn every_row_names_a_field() {
        let text = include_str!("enums.rs");
        let table = text.split("#[cfg(test)]").next().expect("the table");
        for quoted in table.split("(\"").skip(1) {
            let owner = quoted.split('"').next().expect("a name");
            assert!(types::all().iter().any(|of| of.short_name() == owner), "{owner}");
        }
        let checked = types::all()
            .iter()
            .flat_map(|of| {
                of.fields.iter().filter(|field| super::of(of.short_name(), field.name).is_some())
            })
            .count();
        assert!(checked >= 1, "{checked}");
    }
}
