//! What is wrong between the ports of a switch, as one nftables script. Pure.

use std::{collections::BTreeMap, fmt::Write};

/// The table of family `bridge` in a switch's namespace.
const TABLE: &str = "lab";

/// What happens to frames on their way from one port to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// None arrives.
    Cut,
    /// This many of a hundred are lost, each by chance.
    Lossy(u8),
    /// What is beyond this many bytes a second is lost.
    Slow(u32),
}

/// All faults of a switch, each in one direction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults(BTreeMap<(String, String), Fault>);

impl Faults {
    /// Sets the fault from one port to another, instead of one that is there.
    pub fn set(&mut self, from: &str, to: &str, fault: Fault) {
        self.0.insert((from.to_owned(), to.to_owned()), fault);
    }

    /// Ends the fault from one port to another.
    pub fn clear(&mut self, from: &str, to: &str) {
        self.0.remove(&(from.to_owned(), to.to_owned()));
    }

    /// The transaction that puts exactly these faults in force.
    pub fn script(&self) -> String {
        // Making it first is what lets the deletion succeed where there is none.
        let mut script = format!("table bridge {TABLE}\ndelete table bridge {TABLE}\n");
        if self.0.is_empty() {
            return script;
        }
        let _ = write!(
            script,
            "table bridge {TABLE} {{\n chain forward {{\n  \
             type filter hook forward priority 0; policy accept;\n"
        );
        for ((from, to), fault) in &self.0 {
            let condition = match fault {
                Fault::Cut => String::new(),
                Fault::Lossy(percent) => format!("numgen random mod 100 < {percent} "),
                Fault::Slow(rate) => format!("limit rate over {rate} bytes/second "),
            };
            let _ = writeln!(script, "  iifname \"{from}\" oifname \"{to}\" {condition}drop");
        }
        script.push_str(" }\n}\n");
        script
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_says_each_fault_once() {
        let mut faults = Faults::default();
        let nothing = faults.script();
        assert_eq!(nothing, "table bridge lab\ndelete table bridge lab\n");
        faults.set("a", "b", Fault::Cut);
        faults.set("a", "b", Fault::Lossy(30));
        faults.set("b", "a", Fault::Slow(9000));
        faults.set("c", "a", Fault::Cut);
        faults.clear("x", "y");
        let script = faults.script();
        assert!(script.starts_with(&nothing), "{script}");
        let rules: Vec<&str> = script.lines().filter(|line| line.ends_with("drop")).collect();
        assert_eq!(
            rules,
            [
                "  iifname \"a\" oifname \"b\" numgen random mod 100 < 30 drop",
                "  iifname \"b\" oifname \"a\" limit rate over 9000 bytes/second drop",
                "  iifname \"c\" oifname \"a\" drop",
            ]
        );
        for (from, to) in [("a", "b"), ("b", "a"), ("c", "a")] {
            faults.clear(from, to);
        }
        assert_eq!(faults, Faults::default());
    }
}
