//! Hiding machines behind another one's address, as routers at home do. The rules are pure text.

use std::{fmt::Write, path::Path};

use ipnet::IpNet;

use super::{LabError, Namespace};
use crate::nft;

/// Which packets leave a namespace in its own name. Whoever is hidden cannot be reached from there.
#[derive(Debug, Clone, Copy, Default)]
pub struct Masquerade<'a> {
    /// Name of the table (family `inet`) that holds the rule; nobody else's.
    pub table: &'a str,
    /// Those that come from here; `None` is from anywhere.
    pub from: Option<IpNet>,
    /// Those that leave through this device; `None` is any.
    pub out: Option<&'a str>,
    /// But not those that leave through one of these.
    pub not_out: &'a [&'a str],
}

impl Masquerade<'_> {
    fn script(&self) -> String {
        let mut rule = String::new();
        if let Some(from) = self.from {
            let family = if from.addr().is_ipv4() { "ip" } else { "ip6" };
            let _ = write!(rule, "{family} saddr {from} ");
        }
        if let Some(device) = self.out {
            let _ = write!(rule, "oifname \"{device}\" ");
        }
        for device in self.not_out {
            let _ = write!(rule, "oifname != \"{device}\" ");
        }
        format!(
            "{}table inet {} {{\n chain out {{\n  type nat hook postrouting priority srcnat; policy accept;\n  \
             {rule}masquerade\n }}\n}}\n",
            removal(self.table),
            self.table
        )
    }
}

/// Making the table first is what lets its deletion succeed where there is none.
fn removal(table: &str) -> String {
    format!("table inet {table}\ndelete table inet {table}\n")
}

impl Namespace {
    /// Puts a rule in force, instead of one in the same table.
    ///
    /// # Errors
    /// When `nft` refuses.
    pub fn masquerade(&self, rule: &Masquerade<'_>) -> Result<(), LabError> {
        self.apply(&rule.script())
    }

    /// Removes the rule in a table, if there is one.
    ///
    /// # Errors
    /// When `nft` refuses.
    pub fn remove_masquerade(&self, table: &str) -> Result<(), LabError> {
        self.apply(&removal(table))
    }

    fn apply(&self, script: &str) -> Result<(), LabError> {
        Ok(self.run(|| nft::apply(Path::new("nft"), script))??)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_says_what_it_is_told() {
        let rule = Masquerade {
            table: "t",
            from: Some("10.66.0.0/24".parse().expect("a network")),
            not_out: &["a", "b"],
            ..Masquerade::default()
        };
        let script = rule.script();
        let line = "ip saddr 10.66.0.0/24 oifname != \"a\" oifname != \"b\" masquerade";
        assert!(script.lines().any(|found| found.trim() == line), "{script}");
        assert!(script.starts_with("table inet t\ndelete table inet t\n"), "{script}");
        let rule = Masquerade { table: "t", out: Some("x"), ..Masquerade::default() };
        assert!(rule.script().contains("  oifname \"x\" masquerade\n"));
    }
}
