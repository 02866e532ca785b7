//! Runs the text fixtures in `fixtures/`: requests, each with the answer it must get.
//!
//! A fixture is a sequence of blocks on one fresh engine:
//!
//! ```text
//! VERB RESOURCE[/NAME[/SUBRESOURCE]] [NAMESPACE] [?QUERY]
//! optional JSON body, on any number of lines; $NAME is what was captured
//! => CODE MESSAGE               for an error, the whole message
//! => CODE {JSON}                for a success, what the answer must contain ("*" is anything)
//! -> warning text               as many as the answer has, optional
//! == NAME PATH                  captures a text of the answer, such as `== RV metadata.resourceVersion`
//! ```

use std::collections::BTreeMap;

use crate::common::{Bench, difference, json_of};
use serde_json::Value;

struct Block {
    line: usize,
    head: String,
    body: String,
    expected: String,
    warnings: Vec<String>,
    captures: Vec<(String, String)>,
}

fn parse(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = text.lines().enumerate().filter(|(_, l)| !l.starts_with('#')).peekable();
    while let Some((number, head)) = lines.next() {
        if head.trim().is_empty() {
            continue;
        }
        let (mut body, mut expected) = (String::new(), String::new());
        let (mut warnings, mut captures) = (Vec::new(), Vec::new());
        while let Some((_, line)) = lines.next_if(|(_, l)| !l.trim().is_empty()) {
            if let Some(rest) = line.strip_prefix("=> ") {
                expected = rest.to_owned();
            } else if let Some(rest) = line.strip_prefix("-> ") {
                warnings.push(rest.to_owned());
            } else if let Some(rest) = line.strip_prefix("== ") {
                let (name, path) = rest.split_once(' ').expect("== NAME PATH");
                captures.push((format!("${name}"), path.to_owned()));
            } else if expected.is_empty() {
                body.push_str(line);
                body.push('\n');
            } else {
                expected.push('\n');
                expected.push_str(line);
            }
        }
        blocks.push(Block {
            line: number + 1,
            head: head.to_owned(),
            body,
            expected,
            warnings,
            captures,
        });
    }
    blocks
}

async fn check(name: &str, text: &str) {
    let bench = Bench::new();
    let mut captured: BTreeMap<String, String> = BTreeMap::new();
    for block in parse(text) {
        let fill = |text: &str| {
            // Longer names first, so that one may begin with another.
            captured
                .iter()
                .rev()
                .fold(text.to_owned(), |text, (name, value)| text.replace(name, value))
        };
        let head = fill(&block.head);
        let (head, query) = head.split_once('?').unwrap_or((&head, ""));
        let mut words = head.split_whitespace();
        let (verb, path) = (words.next().expect("verb"), words.next().expect("path"));
        let namespace = words.next().unwrap_or_default();
        let place = format!("{name}:{}: {}", block.line, block.head);
        let answer = bench.run(verb, path, namespace, query, &fill(&block.body)).await;
        let expected = fill(&block.expected);
        let (code, rest) = expected.split_once(' ').unwrap_or((&expected, ""));
        match answer {
            Ok(outcome) => {
                let (actual, json, warnings) = json_of(outcome);
                assert_eq!(actual.to_string(), code, "{place}: {json}");
                if !rest.is_empty() {
                    let wanted: Value =
                        serde_json::from_str(rest).unwrap_or_else(|e| panic!("{place}: {e}"));
                    if let Some(difference) = difference(&wanted, &json, "") {
                        panic!("{place}\n{difference}\nin {json:#}");
                    }
                }
                assert_eq!(warnings, block.warnings, "{place}");
                for (name, path) in block.captures {
                    let value = path.split('.').fold(&json, |value, name| &value[name]);
                    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                    captured.insert(name, text);
                }
            }
            Err(status) => {
                // Line breaks of a message stand in a fixture as such or as `\n`.
                let one_line = |text: &str| text.replace('\n', "\\n");
                assert_eq!(
                    (status.code.to_string().as_str(), one_line(&status.message)),
                    (code, one_line(rest)),
                    "{place}"
                );
            }
        }
    }
}

macro_rules! fixtures {
    ($($name:ident),* $(,)?) => { $(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            let file = concat!(stringify!($name), ".txt");
            check(file, include_str!(concat!("fixtures/", stringify!($name), ".txt"))).await;
        }
    )* };
}

fixtures!(
    create,
    update,
    patch,
    apply,
    delete,
    subresources,
    reads,
    services,
    conversion,
    strategies,
    rules,
);

#[tokio::test]
async fn every_fixture_is_run() {
    let source = include_str!("pipeline.rs");
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/engine/fixtures"))
        .expect("fixtures")
    {
        let name = entry.expect("entry").file_name();
        let stem = name.to_string_lossy().replace(".txt", "");
        assert!(source.contains(&stem), "{stem} is not listed");
    }
}
