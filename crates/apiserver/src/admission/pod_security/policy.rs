//! What a namespace's labels ask of its pods: a level of the Pod Security Standards in the form of some version,
//! to enforce, to note in the audit log and to warn of.

use std::fmt;

use meta::{FieldError, FieldPath};
use serde_json::Value;

use crate::admission::text;

/// How much pods may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// Anything.
    Privileged,
    /// Nothing that is known to lead out of the container.
    Baseline,
    /// Only what hardened pods need.
    Restricted,
}

impl Level {
    const NAMES: [(&str, Self); 3] = [
        ("privileged", Self::Privileged),
        ("baseline", Self::Baseline),
        ("restricted", Self::Restricted),
    ];

    fn parse(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, level)| *level)
    }
}

/// The minor version of Kubernetes whose form of the standards is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(pub(super) u64);

impl Version {
    pub(super) const LATEST: Self = Self(u64::MAX);

    fn parse(text: &str) -> Option<Self> {
        if text == "latest" {
            return Some(Self::LATEST);
        }
        let digits = text.strip_prefix("v1.")?;
        let plain = digits.bytes().all(|b| b.is_ascii_digit())
            && (digits == "0" || !digits.starts_with('0'));
        digits.parse().ok().filter(|_| plain).map(Self)
    }
}

/// A level in the form of a version; displays as `baseline:v1.30`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LevelVersion {
    pub(super) level: Level,
    pub(super) version: Version,
}

impl fmt::Display for LevelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Level::NAMES.iter().find(|(_, level)| *level == self.level);
        f.write_str(name.map_or("", |(name, _)| name))?;
        match self.version {
            Version::LATEST => f.write_str(":latest"),
            Version(minor) => write!(f, ":v1.{minor}"),
        }
    }
}

/// What is asked of pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Policy {
    pub(super) enforce: LevelVersion,
    pub(super) audit: LevelVersion,
    pub(super) warn: LevelVersion,
}

impl Default for Policy {
    fn default() -> Self {
        let any = LevelVersion { level: Level::Privileged, version: Version::LATEST };
        Self { enforce: any, audit: any, warn: any }
    }
}

/// The labels by which a namespace says it: of a mode, its level and its version.
pub(super) const MODES: [(&str, &str, &str); 3] = [
    ("enforce", "pod-security.kubernetes.io/enforce", "pod-security.kubernetes.io/enforce-version"),
    ("audit", "pod-security.kubernetes.io/audit", "pod-security.kubernetes.io/audit-version"),
    ("warn", "pod-security.kubernetes.io/warn", "pod-security.kubernetes.io/warn-version"),
];

impl Policy {
    /// The three modes, in the order of [`MODES`].
    pub(super) fn modes(&self) -> [LevelVersion; 3] {
        [self.enforce, self.audit, self.warn]
    }

    /// Reads `defaults` of the plugin's configuration.
    ///
    /// # Errors
    /// The value that is none.
    pub(super) fn configured(defaults: &Value) -> Result<Self, String> {
        let mode = |name: &str| -> Result<LevelVersion, String> {
            let or = |field: String, default: &'static str| match text(defaults, &field) {
                "" => default.to_owned(),
                given => given.to_owned(),
            };
            let (level, version) =
                (or(name.to_owned(), "privileged"), or(format!("{name}-version"), "latest"));
            let bad = |value: &str| format!("{value:?} cannot be the default of {name}");
            Ok(LevelVersion {
                level: Level::parse(&level).ok_or_else(|| bad(&level))?,
                version: Version::parse(&version).ok_or_else(|| bad(&version))?,
            })
        };
        Ok(Self { enforce: mode("enforce")?, audit: mode("audit")?, warn: mode("warn")? })
    }

    /// Whether nothing is asked at all.
    pub(super) fn is_privileged(&self) -> bool {
        self.modes().iter().all(|mode| mode.level == Level::Privileged)
    }

    /// Whether both ask the same.
    pub(super) fn is_equivalent(&self, other: &Self) -> bool {
        let same = |(one, other): (LevelVersion, LevelVersion)| {
            one == other || (one.level == Level::Privileged && other.level == Level::Privileged)
        };
        self.modes().into_iter().zip(other.modes()).all(same)
    }

    /// What a namespace with these labels asks. Where a label makes no sense there is an error, and the
    /// strictest is enforced.
    pub(super) fn of(labels: &Value, defaults: &Self) -> (Self, Vec<FieldError>) {
        let mut errors = Vec::new();
        let mut read = [defaults.enforce, defaults.audit, defaults.warn];
        let given = |label: &str| labels[label].as_str();
        let mut enforced = false;
        for (mode, (name, level, version)) in read.iter_mut().zip(MODES) {
            if let Some(value) = given(level) {
                let known = Level::parse(value);
                enforced |= known.is_some() && name == "enforce";
                // Only what is enforced fails closed.
                let instead = if name == "enforce" { Level::Restricted } else { Level::Privileged };
                mode.level = known.unwrap_or(instead);
                let why = "must be one of privileged, baseline, restricted";
                errors.extend(known.is_none().then(|| invalid(level, value, why)));
            }
            if let Some(value) = given(version) {
                let known = Version::parse(value);
                mode.version = known.unwrap_or(Version::LATEST);
                let why = r#"must be "latest" or "v1.x""#;
                errors.extend(known.is_none().then(|| invalid(version, value, why)));
            }
        }
        let [enforce, audit, mut warn] = read;
        // Who is going to be refused may as well be warned, of workloads too.
        let (_, warn_level, warn_version) = MODES[2];
        if enforced && given(warn_level).is_none() && enforce.level > warn.level {
            warn.level = enforce.level;
            if given(warn_version).is_none() {
                warn.version = enforce.version;
            }
        }
        (Self { enforce, audit, warn }, errors)
    }
}

fn invalid(label: &str, value: &str, why: &str) -> FieldError {
    FieldError::invalid(FieldPath::new("metadata").child("labels").key(label), value, why)
}
