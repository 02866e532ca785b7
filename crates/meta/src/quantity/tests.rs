//! Canonical forms, rounding, limits, and that printing and parsing are inverse.

use rand::{Rng, SeedableRng};

use super::*;

fn q(text: &str) -> Quantity {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn canonical_forms() {
    for (text, expected) in [
        ("0", "0"),
        ("0Mi", "0"),
        ("-0", "0"),
        ("1", "1"),
        ("+5", "5"),
        ("0.5", "500m"),
        (".5", "500m"),
        ("1.", "1"),
        ("1.5", "1500m"),
        ("1000m", "1"),
        ("100m", "100m"),
        ("1000", "1k"),
        ("1500", "1500"),
        ("1.5Gi", "1536Mi"),
        ("1024Mi", "1Gi"),
        ("1500Mi", "1500Mi"),
        ("0.5Ki", "512"),
        ("1023Ki", "1023Ki"),
        ("0.1Ki", "102400m"),
        ("12e6", "12e6"),
        ("12E6", "12e6"),
        ("5e2", "500"),
        ("1e-3", "1e-3"),
        ("1E", "1E"),
        ("1000E", "1e21"),
        ("0.9n", "1n"),
        ("1.2345", "1234500u"),
        ("-1.5Gi", "-1536Mi"),
        ("-100m", "-100m"),
        ("8Ei", "9223372036854775807"),
        ("18446744073709551616", "18446744073709551616"),
        ("123456789012345678901234567890m", "123456789012345678901234567890m"),
        ("0.00001Mi", "10485760u"),
        ("1.000000000000000000001Gi", "1073741824000000001n"),
    ] {
        assert_eq!(q(text).to_string(), expected, "{text}");
    }
}

#[test]
fn errors() {
    let check = |text: &str, error: QuantityError| {
        assert_eq!(text.parse::<Quantity>(), Err(error), "{text}");
    };
    for text in ["", "abc", "1.1.1", " 1", "1 ", "--1", "1Mi5x", "1z"] {
        check(text, QuantityError::Format);
    }
    for text in ["1i", "1mi", "1KiB".trim_end_matches('B').trim_end_matches('i'), "1ee3", "1MiMi"] {
        if text != "1K" {
            check(text, QuantityError::Suffix);
        }
    }
    check("1K", QuantityError::Suffix);
    check(".", QuantityError::Numeric);
    check("1e40", QuantityError::Numeric);
}

#[test]
fn values_round_away_from_zero() {
    assert_eq!(q("100m").value(), 1);
    assert_eq!(q("-100m").value(), -1);
    assert_eq!(q("1.0001").milli_value(), 1001);
    assert_eq!(q("2").milli_value(), 2000);
    assert_eq!(q("64Mi").value(), 67_108_864);
    assert_eq!(q("1e20").milli_value(), i64::MAX);
}

#[test]
fn arithmetic_keeps_the_first_format() {
    assert_eq!((q("1Gi") + q("1Gi")).to_string(), "2Gi");
    assert_eq!((Quantity::ZERO + q("1Gi")).to_string(), "1Gi");
    assert_eq!((q("1") - q("100m")).to_string(), "900m");
    assert_eq!([q("1Mi"), q("1Mi")].into_iter().sum::<Quantity>().to_string(), "2Mi");
    assert!(q("1Gi") > q("1G") && q("1000m") == q("1"));
}

#[test]
fn json() {
    assert_eq!(serde_json::from_str::<Quantity>("\"64Mi\"").unwrap(), q("64Mi"));
    assert_eq!(serde_json::from_str::<Quantity>("0.5").unwrap(), q("500m"));
    assert_eq!(serde_json::to_string(&q("1.5")).unwrap(), "\"1500m\"");
    assert!(serde_json::from_str::<Quantity>("[]").is_err());
}

/// For any quantity: the canonical form parses to the same amount and is its own canonical form.
#[test]
fn canonical_form_is_a_fixed_point() {
    let mut rng = rand::rngs::StdRng::seed_from_u64(1);
    for _ in 0..20_000 {
        let suffixes = ["", "n", "u", "m", "k", "M", "G", "T", "Ki", "Mi", "Gi", "Ti", "e3", "e-3"];
        let suffix = suffixes[rng.random_range(0..suffixes.len())];
        let whole = rng.random_range(0..1_000_000_u64) >> rng.random_range(0..20);
        let text = if rng.random_bool(0.5) {
            format!("{whole}{suffix}")
        } else {
            format!("{whole}.{:03}{suffix}", rng.random_range(0..1000))
        };
        let first = q(&text);
        let printed = first.to_string();
        let again = q(&printed);
        assert_eq!(first, again, "{text} printed {printed}");
        assert_eq!(again.to_string(), printed, "{text}");
    }
}
