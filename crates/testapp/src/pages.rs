//! The pages of the website. Knows nothing of connections.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::http::{Request, Response};
use crate::options::Options;

const MAX_FILES: usize = 64;
const MAX_FILE: usize = 16 * 1024;
const MAX_WORK: Duration = Duration::from_secs(60);

/// What pages are made from.
pub(crate) struct Site {
    options: Options,
    started: Instant,
    fail_readyz: AtomicBool,
    fail_healthz: AtomicBool,
    draining: AtomicBool,
}

impl Site {
    pub(crate) fn new(options: Options) -> Self {
        Self {
            started: Instant::now(),
            fail_readyz: AtomicBool::new(options.fail_readyz),
            fail_healthz: AtomicBool::new(options.fail_healthz),
            draining: AtomicBool::new(false),
            options,
        }
    }

    /// From now on the site is not ready.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
    }

    /// Whether [`Site::drain`] was called.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    /// Answers one request from `peer`.
    pub(crate) fn answer(&self, request: &Request, peer: SocketAddr) -> Response {
        if !matches!(request.method.as_str(), "GET" | "HEAD" | "POST") {
            return Response::text(405, "method not allowed\n");
        }
        match request.path.as_str() {
            "/" => self.home(request, peer),
            "/version" => Response::text(200, format!("{}\n", self.options.version)),
            "/hostname" => Response::text(200, format!("{}\n", pod_name())),
            "/clientip" => Response::text(200, format!("{peer}\n")),
            "/headers" => Response::text(200, headers(request)),
            "/echo" => Response::text(200, String::from_utf8_lossy(&request.body)),
            "/healthz" => verdict(self.unhealthy()),
            "/readyz" => verdict(self.not_ready()),
            "/work" => match duration(request) {
                Some(time) => {
                    let rounds = burn(time);
                    Response::text(
                        200,
                        format!("worked {} ms, {rounds} rounds\n", time.as_millis()),
                    )
                }
                None => Response::text(400, "ms must be a number up to 60000\n"),
            },
            "/slow" => match duration(request) {
                Some(time) => {
                    std::thread::sleep(time);
                    Response::text(200, format!("waited {} ms\n", time.as_millis()))
                }
                None => Response::text(400, "ms must be a number up to 60000\n"),
            },
            "/fail" => self.switch(request),
            "/exit" => {
                let code = request.parameter("code").and_then(|code| code.parse().ok());
                std::process::exit(code.unwrap_or(1));
            }
            _ => Response::text(404, "not found\n"),
        }
    }

    fn unhealthy(&self) -> Option<&'static str> {
        let expired =
            self.options.fail_healthz_after.is_some_and(|after| self.started.elapsed() >= after);
        (expired || self.fail_healthz.load(Ordering::SeqCst)).then_some("switched to fail")
    }

    fn not_ready(&self) -> Option<&'static str> {
        if self.is_draining() {
            Some("stopping")
        } else if self.fail_readyz.load(Ordering::SeqCst) {
            Some("switched to fail")
        } else if self.started.elapsed() < self.options.ready_delay {
            Some("starting")
        } else if self.options.not_ready_file.as_deref().is_some_and(Path::exists) {
            Some("a file says not to be")
        } else {
            None
        }
    }

    /// `/fail?readyz=true&healthz=false` switches failures on and off.
    fn switch(&self, request: &Request) -> Response {
        for (name, flag) in [("readyz", &self.fail_readyz), ("healthz", &self.fail_healthz)] {
            if let Some(value) = request.parameter(name) {
                flag.store(matches!(value, "" | "1" | "true"), Ordering::SeqCst);
            }
        }
        let state = |flag: &AtomicBool| flag.load(Ordering::SeqCst);
        let (readyz, healthz) = (state(&self.fail_readyz), state(&self.fail_healthz));
        Response::text(200, format!("readyz fails: {readyz}\nhealthz fails: {healthz}\n"))
    }

    fn home(&self, request: &Request, peer: SocketAddr) -> Response {
        let accept = request.header("accept").unwrap_or_default();
        let environment = environment();
        let configuration = configuration(&self.options.config_dir);
        let version = &self.options.version;
        let pod = pod_name();
        let node = std::env::var("NODE_NAME").unwrap_or_default();
        if accept.contains("application/json") || request.parameter("format") == Some("json") {
            return Response::json(format!(
                "{{\"version\":{},\"pod\":{},\"node\":{},\"client\":{},\"environment\":{},\"configuration\":{}}}\n",
                json(version),
                json(&pod),
                json(&node),
                json(&peer.to_string()),
                json_map(&environment),
                json_map(&configuration),
            ));
        }
        let mut out = format!("website {version} from {pod}\n");
        if !node.is_empty() {
            let _ = writeln!(out, "node {node}");
        }
        let _ = writeln!(out, "client {peer}");
        out.push_str("\nenvironment\n");
        for (name, value) in &environment {
            let _ = writeln!(out, "  {name}={value}");
        }
        if !configuration.is_empty() {
            let _ = writeln!(out, "\nconfiguration in {}", self.options.config_dir.display());
        }
        for (name, content) in &configuration {
            let _ = writeln!(out, "  {name}");
            for line in content.lines() {
                let _ = writeln!(out, "    {line}");
            }
        }
        Response::text(200, out)
    }
}

fn verdict(problem: Option<&str>) -> Response {
    match problem {
        None => Response::text(200, "ok\n"),
        Some(problem) => Response::text(503, format!("{problem}\n")),
    }
}

fn duration(request: &Request) -> Option<Duration> {
    let millis = request.parameter("ms").unwrap_or("10").parse().ok()?;
    Some(Duration::from_millis(millis)).filter(|time| *time <= MAX_WORK)
}

/// Keeps one processor busy for `time`; the number of rounds it managed.
pub(crate) fn burn(time: Duration) -> u64 {
    let end = Instant::now() + time;
    let (mut rounds, mut state) = (0, 0x9e37_79b9_7f4a_7c15_u64);
    while Instant::now() < end {
        for _ in 0..10_000 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
        }
        rounds += 1;
        std::hint::black_box(state);
    }
    rounds
}

/// `POD_NAME`, else the host name, which in a pod is the pod's.
pub(crate) fn pod_name() -> String {
    std::env::var("POD_NAME")
        .or_else(|_| std::env::var("HOSTNAME"))
        .ok()
        .or_else(|| fs::read_to_string("/proc/sys/kernel/hostname").ok())
        .map_or_else(|| "unknown".to_owned(), |name| name.trim().to_owned())
}

/// The environment; of values that look secret only the length.
fn environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .map(|(name, value)| {
            let name = name.to_string_lossy().into_owned();
            let value = value.to_string_lossy().into_owned();
            let secret =
                ["SECRET", "PASSWORD", "TOKEN", "KEY"].iter().any(|word| name.contains(word));
            let value = if secret { format!("({} bytes, not shown)", value.len()) } else { value };
            (name, value)
        })
        .collect()
}

/// Files of the mounted configuration, without the links that make updates atomic.
fn configuration(dir: &Path) -> BTreeMap<String, String> {
    let Ok(entries) = fs::read_dir(dir) else { return BTreeMap::new() };
    entries
        .flatten()
        .map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path()))
        .filter(|(name, path)| !name.starts_with("..") && path.is_file())
        .take(MAX_FILES)
        .map(|(name, path)| {
            let mut content = fs::read(path).unwrap_or_default();
            content.truncate(MAX_FILE);
            (name, String::from_utf8_lossy(&content).into_owned())
        })
        .collect()
}

fn headers(request: &Request) -> String {
    let mut out = String::new();
    for (name, value) in &request.headers {
        let _ = writeln!(out, "{name}: {value}");
    }
    out
}

fn json(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            c if (c as u32) < 0x20 => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn json_map(map: &BTreeMap<String, String>) -> String {
    let pairs: Vec<String> =
        map.iter().map(|(name, value)| format!("{}:{}", json(name), json(value))).collect();
    format!("{{{}}}", pairs.join(","))
}
