//! A story as text: what kubectl is asked and what its answer must hold. `$` must succeed, `!` must fail, `?`
//! must succeed where it is not 1.27 (that asks in versions that are served no more, or lacks the flag); after
//! `|| true` either may be. Single quotes hold words together; the lines below are looked for in what it prints,
//! each alone, and one that begins with `- ` must not be there.
//!
//! Refuses to know how kubectl runs.

/// One command.
struct Step {
    line: usize,
    succeeds: bool,
    /// Whether the oldest kubectl is not asked.
    newer: bool,
    /// Whether it may fail all the same.
    either: bool,
    words: Vec<String>,
    expected: Vec<String>,
}

/// How a command ended.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    /// All that it printed.
    pub(crate) shown: String,
}

/// The commands of a story.
fn steps(story: &'static str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for (number, line) in story.lines().enumerate() {
        if let Some((mark @ ("$" | "!" | "?"), command)) = line.split_once(' ') {
            let (command, either) = match command.strip_suffix(" || true") {
                Some(command) => (command, true),
                None => (command, false),
            };
            steps.push(Step {
                line: number + 1,
                succeeds: mark != "!",
                newer: mark == "?",
                either,
                words: words(command),
                expected: Vec::new(),
            });
        } else if let Some(step) =
            steps.last_mut().filter(|_| !line.is_empty() && !line.starts_with('#'))
        {
            step.expected.push(line.to_owned());
        }
    }
    steps
}

/// Words between spaces; single quotes hold together.
fn words(command: &str) -> Vec<String> {
    let (mut words, mut quoted) = (vec![String::new()], false);
    for character in command.chars() {
        match character {
            '\'' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            _ => words.last_mut().expect("a word").push(character),
        }
    }
    words
}

/// Tells a story to the kubectl that `run` asks, and panics with all its surprises. `fill` puts names into what the
/// story says.
pub(crate) fn tell(
    story: &'static str,
    program: &str,
    fill: impl Fn(&str) -> String,
    run: impl Fn(&[String]) -> Ended,
) {
    let oldest = program.ends_with("kubectl.1.27");
    let told = steps(story).into_iter().filter(|step| !(step.newer && oldest)).map(|mut step| {
        step.words.iter_mut().chain(&mut step.expected).for_each(|text| *text = fill(text));
        step
    });
    let surprises: Vec<String> =
        told.filter_map(|step| surprise(&step, &run(&step.words))).collect();
    assert!(surprises.is_empty(), "{program}:\n{}", surprises.join("\n"));
}

fn surprise(step: &Step, ended: &Ended) -> Option<String> {
    let Ended { code, shown } = ended;
    let wrong = |text: &&String| match text.strip_prefix("- ") {
        Some(text) => shown.contains(text),
        None => !shown.contains(text.as_str()),
    };
    let wrong: Vec<_> = step.expected.iter().filter(wrong).collect();
    let ended_well = step.either || (*code == Some(0)) == step.succeeds;
    (!wrong.is_empty() || !ended_well).then(|| {
        format!("{}: {}: {code:?}, not {wrong:?}: {shown}", step.line, step.words.join(" "))
    })
}
