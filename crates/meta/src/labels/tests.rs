//! What selectors match, print and refuse.

use serde_json::json;

use super::*;

fn labels(text: &str) -> BTreeMap<String, String> {
    text.split(',')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap())
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

#[test]
fn matches() {
    let check = |selector: &str, of: &str, expected: bool| {
        let parsed = Selector::parse(selector).unwrap();
        assert_eq!(parsed.matches(&labels(of)), expected, "{selector} on {of}");
    };
    check("", "", true);
    check("a=b", "a=b", true);
    check("a=b", "a=c", false);
    check("a==b,c!=d", "a=b", true);
    check("a!=b", "a=b", false);
    check("a in (b, c)", "a=c", true);
    check("a notin (b,c)", "a=c", false);
    check("a notin (b,c)", "", true);
    check("a", "a=", true);
    check("!a", "a=", false);
    check("a>1", "a=2", true);
    check("a<1", "a=x", false);
    check("a in ()", "a=", true);
    check("a in (,)", "a=", true);
    check("a=", "a=", true);
    check("in in (in)", "in=in", true);
    check("!a,b", "b=1", true);
}

#[test]
fn prints_canonically() {
    let check = |text: &str, expected: &str| {
        assert_eq!(Selector::parse(text).unwrap().to_string(), expected);
    };
    check("z=1, a in (c,b)", "a in (b,c),z=1");
    check("!b,a", "a,!b");
    check("x==1,y!=2", "x==1,y!=2");
}

#[test]
fn refuses() {
    let check = |text: &str, expected: &str| {
        assert_eq!(Selector::parse(text).unwrap_err().to_string(), expected, "{text}");
    };
    check("a=b,", "found '', expected: identifier after ','");
    check(",a", "found ',', expected: !, identifier, or 'end of string'");
    check("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt");
    check("a in b", "unable to parse requirement: found 'b' expected: '('");
    check("a in (b", "unable to parse requirement: found '', expected: ',' or ')'");
    check("a=b c", "found 'c', expected: ',' or 'end of string'");
    assert!(Selector::parse("-a=b").unwrap_err().to_string().starts_with(
        "unable to parse requirement: <nil>: Invalid value: \"-a\": name part must consist of"
    ));
    assert!(Selector::parse("a=-b").unwrap_err().to_string().starts_with(
        "unable to parse requirement: values[0][a]: Invalid value: \"-b\": a valid label must be"
    ));
}

#[test]
fn from_objects() {
    let selector = Selector::from_label_selector(&json!({
        "matchLabels": {"app": "web"},
        "matchExpressions": [{"key": "tier", "operator": "In", "values": ["b", "a"]}],
    }))
    .unwrap();
    assert_eq!(selector.to_string(), "app=web,tier in (a,b)");
    assert!(Selector::from_label_selector(&json!({})).unwrap().is_empty());
    assert!(!Selector::from_label_selector(&Value::Null).unwrap().matches(&labels("a=b")));
    let bad = json!({"matchExpressions": [{"key": "a", "operator": "Near"}]});
    assert_eq!(
        Selector::from_label_selector(&bad).unwrap_err().to_string(),
        "\"Near\" is not a valid label selector operator"
    );
}
