//! Client libraries of other languages against a real cluster: objects, watches, logs, commands, forwarded ports.
//! Their packages come from the language's own registry, into the build directory, once.

use std::path::{Path, PathBuf};
use std::process::Command;

use testkit::{Cluster, website_images};

use crate::tool::finish;

const PYTHON: &str = "kubernetes==37.0.2";
const JAVASCRIPT: &str = "@kubernetes/client-node@1.4.0";

/// A directory where `install` has put a package; `None`, and a word about it, where that is not to be had.
fn package(name: &str, install: impl Fn(&Path) -> Command) -> Option<PathBuf> {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name.replace(['/', '@', '='], "-"));
    let complete = directory.join("complete");
    if complete.exists() {
        return Some(directory);
    }
    std::fs::create_dir_all(&directory).expect("a directory");
    let missing = match install(&directory).output() {
        Ok(output) if output.status.success() => {
            std::fs::write(complete, "").expect("written");
            return Some(directory);
        }
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => error.to_string(),
    };
    eprintln!("skipped: {name} cannot be installed: {missing}");
    None
}

fn python() -> Option<PathBuf> {
    package(PYTHON, |directory| {
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--no-compile", "--target"])
            .arg(directory)
            .arg(PYTHON);
        pip
    })
}

fn javascript() -> Option<PathBuf> {
    package(JAVASCRIPT, |directory| {
        let mut npm = Command::new("npm");
        npm.args(["install", "--silent", "--no-fund", "--no-audit", "--prefix"]);
        npm.arg(directory).arg(JAVASCRIPT);
        npm
    })
}

/// Runs a program in the cluster's network to a good end.
fn content(cluster: &Cluster, program: &str, story: &Path, python_path: Option<&Path>) {
    let story = story.to_str().expect("paths in tests are UTF-8");
    let mut command = cluster.kubectl_of("timeout", &["180", program, story]);
    if let Some(path) = python_path {
        command.env("PYTHONPATH", path);
    }
    let outcome = finish(command, "");
    assert_eq!(outcome.code, Some(0), "{story}: {}\n{}", outcome.out, outcome.err);
}

#[test]
fn clients_in_python_and_javascript_are_content() {
    let (python, javascript) = std::thread::scope(|scope| {
        let javascript = scope.spawn(javascript);
        (python(), javascript.join().expect("npm was asked"))
    });
    if python.is_none() && javascript.is_none() {
        return;
    }
    let cluster = Cluster::start(crate::SKIFF);
    cluster.import(&website_images());
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster/clients");
    std::thread::scope(|scope| {
        if let Some(packages) = &python {
            scope.spawn(|| {
                for story in ["objects.py", "pods.py"] {
                    content(&cluster, "python3", &sources.join(story), Some(packages));
                }
            });
        }
        if let Some(packages) = &javascript {
            scope.spawn(|| {
                // Modules are looked for beside the file that names them.
                let story = packages.join("story.mjs");
                std::fs::copy(sources.join("story.mjs"), &story).expect("copied");
                content(&cluster, "node", &story, None);
            });
        }
    });
}
