//! Words within requests: selectors, quantities, times, queries, media types, tokens.

use meta::{FieldSelector, Quantity, Selector, names};
use rand::Rng as _;
use registry::{Params, Verb};
use skiff_fuzz::{campaign, mutate};

use crate::frugal;

#[test]
fn selectors_are_refused_or_printed_as_they_are_read() {
    let seeds = [
        "a=b,c!=d",
        "a in (b,c), d notin (e),f,!g",
        "example.com/a>1,b<2",
        "metadata.name=a,spec.nodeName!=b\\,c",
    ];
    campaign("selectors", 5000, |rng| {
        let text = mutate::text(rng, &seeds);
        if let Ok(selector) = frugal(text.len(), 200, || Selector::parse(&text)) {
            let printed = selector.to_string();
            let again = Selector::parse(&printed)
                .unwrap_or_else(|error| panic!("{text:?} {printed:?}: {error}"));
            assert_eq!(again.to_string(), printed);
        }
        if let Ok(selector) = frugal(text.len(), 200, || FieldSelector::parse(&text)) {
            let printed = selector.to_string();
            let again = FieldSelector::parse(&printed)
                .unwrap_or_else(|error| panic!("{text:?} {printed:?}: {error}"));
            assert_eq!(again.to_string(), printed);
        }
        for verb in Verb::ALL {
            let _ =
                Params::parse(verb, [("labelSelector", text.as_str()), ("fieldSelector", &text)]);
            let _ = Params::parse(
                verb,
                [
                    ("resourceVersion", text.as_str()),
                    ("resourceVersionMatch", &text),
                    ("limit", &text),
                ],
            );
            let _ = Params::parse(
                verb,
                [("continue", text.as_str()), ("timeoutSeconds", &text), ("fieldManager", &text)],
            );
        }
        let _ = (codec::media::patch_type(Some(&text)), codec::media::body_format(Some(&text)));
    });
}

#[test]
fn quantities_are_refused_or_canonical() {
    let seeds = [
        "100m",
        "1.5Gi",
        "-3k",
        "12e6",
        "+0.000000001",
        "9223372036854775807",
        "1E",
        "4Ei",
        ".5",
        "1e-9",
    ];
    campaign("quantities", 20_000, |rng| {
        let text = mutate::text(rng, &seeds);
        let Ok(quantity) = frugal(text.len(), 20, || text.parse::<Quantity>()) else { return };
        let printed = quantity.to_string();
        let again: Quantity =
            printed.parse().unwrap_or_else(|error| panic!("{text:?} {printed:?}: {error}"));
        assert_eq!(again.to_string(), printed, "{text:?}");
        assert_eq!(again, quantity, "{text:?}");
        let other: Quantity = seeds[rng.random_range(0..seeds.len())].parse().expect("a quantity");
        let _ = (
            (quantity + other).to_string(),
            (quantity - other).to_string(),
            (-quantity).to_string(),
        );
        let _ = (quantity.value(), quantity.milli_value());
    });
}

#[test]
fn names_times_and_versions_of_anything() {
    let seeds = [
        "web-1",
        "example.com/name",
        "2026-01-02T03:04:05.000006+01:00",
        "v1",
        "apps/v1",
        "50%",
        "*.a.b",
        "A_B",
    ];
    campaign("words", 5000, |rng| {
        let text = mutate::text(rng, &seeds);
        if let Some(time) = meta::time::parse(&text) {
            let printed = meta::time::micros(time);
            assert_eq!(
                meta::time::parse(&printed).map(meta::time::micros),
                Some(printed),
                "{text:?}"
            );
        }
        for check in [
            names::is_dns1123_label,
            names::is_dns1123_subdomain,
            names::is_search_domain,
            names::is_dns1035_label,
            names::is_wildcard_dns1123_subdomain,
            names::is_qualified_name,
            names::is_label_value,
            names::is_config_map_key,
            names::is_env_var_name,
            names::is_port_name,
            names::is_http_header_name,
            names::is_percent,
            names::is_path_segment,
        ] {
            let _ = frugal(text.len(), 50, || check(&text));
        }
        let _ = meta::int_or_string::scaled_text(&text, i64::MAX, rng.random());
        let _ = meta::int_or_string::percent(&text);
        let _ = (names::mask_trailing_dash(&text), names::safe_encode(&text), names::quoted(&text));
        let _ = (
            meta::kind::split_api_version(&text),
            meta::GroupVersionKind::from_api_version(&text, "Pod"),
        );
    });
}
