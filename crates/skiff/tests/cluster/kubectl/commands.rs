//! A table of commands that need a node, and what they print.

use std::path::Path;

#[path = "../../../../apiserver/tests/server/kubectl/steps.rs"]
mod steps;

use crate::tool::{Tool, finish};

/// Tells the table to one kubectl, in a directory with the files that it names.
pub(super) fn all(tool: &Tool<'_>) {
    let home = tempfile::tempdir().expect("a directory");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster/kubectl/tools.yaml");
    std::fs::copy(source, home.path().join("tools.yaml")).expect("copied");
    std::fs::write(home.path().join("page.txt"), "a page\n").expect("written");
    std::fs::create_dir_all(home.path().join("folder")).expect("a directory");
    std::fs::write(home.path().join("folder/inner"), "inside\n").expect("written");
    let node = tool.field("nodes", "{.items[0].metadata.name}");
    let fill = |text: &str| {
        text.replace("{node}", &node)
            .replace("{image}", super::IMAGE)
            .replace("{namespace}", &tool.namespace)
    };
    steps::tell(include_str!("commands.txt"), &tool.program, fill, |words| {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut command = tool.command("", &words);
        command.current_dir(home.path());
        let ended = finish(command, "");
        steps::Ended { code: ended.code, shown: ended.out + &ended.err }
    });
    let back = |name: &str| std::fs::read_to_string(home.path().join("back").join(name));
    assert_eq!(back("inner").expect("copied back"), "inside\n");
    assert_eq!(back("page.txt").expect("copied back"), "a page\n");
}
