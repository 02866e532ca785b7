//! exec and attach: a gateway between the client's session and the runtime's.

use std::time::Duration;

use cri::{Runtime, RuntimeError, v1};
use http::header::{CONNECTION, HOST, UPGRADE};
use http::{Request, Response, StatusCode, Uri};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serve::Body;
use stream::session::{SPDY_PROTOCOLS, Session, Wanted};
use stream::upgrade::{SPDY, Transport, Upgrade, negotiate};
use stream::websocket;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

/// How long the runtime's streaming server may take to answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest command line, in bytes.
const LONGEST_COMMAND: usize = 256 * 1024;

/// What the client wants with the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To run a further command in it.
    Exec,
    /// To be connected with its first process.
    Attach,
}

/// The container that is meant.
#[derive(Debug)]
pub(crate) struct Container {
    /// The runtime's id of it.
    pub(crate) id: String,
    /// Whether its first process has a terminal. Who attaches cannot choose, and need not know.
    pub(crate) terminal: bool,
}

/// The query of an exec or attach request.
#[derive(Debug, PartialEq, Eq)]
struct Query {
    command: Vec<String>,
    wanted: Wanted,
}

impl Query {
    /// Reads the kubelet's parameter names (`input`, `output`, `error`) and the API's (`stdin`, …).
    fn parse(query: &str) -> Self {
        let mut parsed = Self { command: Vec::new(), wanted: Wanted::default() };
        for (name, value) in form_pairs(query) {
            let on = matches!(value.as_str(), "1" | "true" | "True" | "TRUE" | "t" | "T");
            match name.as_str() {
                "command" => parsed.command.push(value),
                "input" | "stdin" => parsed.wanted.stdin |= on,
                "output" | "stdout" => parsed.wanted.stdout |= on,
                "error" | "stderr" => parsed.wanted.stderr |= on,
                "tty" => parsed.wanted.tty |= on,
                _ => {}
            }
        }
        parsed.wanted = with_terminal(parsed.wanted, parsed.wanted.tty);
        parsed
    }

    fn check(&self, purpose: Purpose) -> Result<(), &'static str> {
        let Wanted { stdin, stdout, stderr, .. } = self.wanted;
        if !(stdin || stdout || stderr) {
            return Err("you must specify at least 1 of stdin, stdout, stderr");
        }
        if purpose == Purpose::Exec && self.command.is_empty() {
            return Err("you must specify at least 1 command for the container");
        }
        if self.command.iter().map(String::len).sum::<usize>() > LONGEST_COMMAND {
            return Err("the command is too long");
        }
        Ok(())
    }
}

/// The same channels with a terminal, which has one output, or without.
const fn with_terminal(wanted: Wanted, tty: bool) -> Wanted {
    Wanted { tty, stderr: wanted.stderr && !tty, ..wanted }
}

/// Name and value of each parameter, percent-decoded.
fn form_pairs(query: &str) -> impl Iterator<Item = (String, String)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(name), decode(value))
    })
}

fn decode(text: &str) -> String {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut ahead = bytes.clone();
                let digits =
                    [ahead.next(), ahead.next()].map(|digit| (digit? as char).to_digit(16));
                let [Some(high), Some(low)] = digits else {
                    decoded.push(b'%');
                    continue;
                };
                bytes = ahead;
                (high * 16 + low) as u8
            }
            other => other,
        });
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// Answers an exec or attach request for a running container. Failures before the connection is
/// upgraded are plain HTTP answers; the session itself goes on in a task that ends with `shutdown`.
pub(crate) async fn command(
    runtime: &dyn Runtime,
    container: Container,
    purpose: Purpose,
    mut request: Request<Body>,
    shutdown: CancellationToken,
) -> Response<Body> {
    let mut query = Query::parse(request.uri().query().unwrap_or_default());
    if let Err(problem) = query.check(purpose) {
        return super::text(StatusCode::BAD_REQUEST, problem.to_owned());
    }
    let upgrade = match negotiate(request.headers(), SPDY_PROTOCOLS, websocket::PROTOCOLS) {
        Ok(upgrade) => upgrade,
        Err(refusal) => return super::refused(&refusal),
    };
    let wanted = query.wanted;
    if purpose == Purpose::Attach {
        query.wanted = with_terminal(wanted, container.terminal);
    }
    let given = query.wanted;
    let streaming = match prepare(runtime, container.id, purpose, query).await {
        Ok(url) => connect(&url).await,
        Err(error) => Err(error.to_string()),
    };
    let back = match streaming {
        Ok(back) => back,
        Err(error) => {
            return super::text(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("connect to the container: {error}"),
            );
        }
    };
    let response = upgrade.response();
    let client = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let session = async {
            let (front, back) = (client.await.map_err(|e| e.to_string())?, back);
            gateway((front, wanted), (back, given), &upgrade).await.map_err(|e| e.to_string())
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            outcome = session => if let Err(error) = outcome {
                tracing::debug!(%error, "remote command ended");
            },
        }
    });
    response
}

/// Joins the client, with the channels it asked for, and the runtime, with those that there are.
async fn gateway(
    (front, wanted): (Upgraded, Wanted),
    (back, given): (Upgraded, Wanted),
    upgrade: &Upgrade,
) -> Result<(), stream::StreamError> {
    let front = TokioIo::new(front);
    let front = match upgrade.transport {
        Transport::Spdy => Session::serve_spdy(front, wanted).await?,
        Transport::WebSocket => websocket::serve(front, upgrade.protocol, wanted).await,
    };
    let back = Session::connect_spdy(TokioIo::new(back), given).await?;
    Session::splice(front, back).await;
    Ok(())
}

/// Asks the runtime for the URL of its streaming server.
async fn prepare(
    runtime: &dyn Runtime,
    container_id: String,
    purpose: Purpose,
    query: Query,
) -> Result<String, RuntimeError> {
    let Wanted { stdin, stdout, stderr, tty } = query.wanted;
    match purpose {
        Purpose::Exec => {
            let request =
                v1::ExecRequest { container_id, cmd: query.command, tty, stdin, stdout, stderr };
            runtime.exec(request).await
        }
        Purpose::Attach => {
            runtime.attach(v1::AttachRequest { container_id, stdin, tty, stdout, stderr }).await
        }
    }
}

/// Upgrades a connection to the runtime's streaming server to SPDY.
async fn connect(url: &str) -> Result<Upgraded, String> {
    let uri: Uri = url.parse().map_err(|_| format!("the runtime gives no URL but {url:?}"))?;
    let authority = uri.authority().ok_or_else(|| format!("no host in {url:?}"))?.to_string();
    let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let dial = async {
        let socket = TcpStream::connect(&authority)
            .await
            .map_err(|e| format!("connect to {authority}: {e}"))?;
        let _ = socket.set_nodelay(true);
        let (mut sender, driver) = hyper::client::conn::http1::handshake(TokioIo::new(socket))
            .await
            .map_err(|e| e.to_string())?;
        // Ends with the connection, which belongs to the session.
        tokio::spawn(driver.with_upgrades());
        let request = Request::post(path)
            .header(HOST, &authority)
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, SPDY)
            .header("X-Stream-Protocol-Version", SPDY_PROTOCOLS[0])
            .body(Body::empty())
            .map_err(|e| e.to_string())?;
        let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let status = response.status();
            let body = Body::from(response.into_body()).read(4096).await.unwrap_or_default();
            return Err(format!(
                "the runtime answers {status}: {}",
                String::from_utf8_lossy(&body).trim()
            ));
        }
        hyper::upgrade::on(response).await.map_err(|e| e.to_string())
    };
    tokio::time::timeout(CONNECT_TIMEOUT, dial)
        .await
        .unwrap_or_else(|_| Err("the runtime does not answer".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_of_kubelet_and_api_mean_the_same() {
        let kubelet =
            Query::parse("command=sh&command=-c&command=echo%20a%2Bb&input=1&output=1&error=1");
        let api = Query::parse(
            "command=sh&command=-c&command=echo+a%2Bb&stdin=true&stdout=true&stderr=true",
        );
        assert_eq!(kubelet, api);
        assert_eq!(kubelet.command, ["sh", "-c", "echo a+b"]);
        assert!(
            kubelet.wanted.stdin
                && kubelet.wanted.stdout
                && kubelet.wanted.stderr
                && !kubelet.wanted.tty
        );
        let terminal = Query::parse("stderr=true&stdout=true&tty=true").wanted;
        assert!(!terminal.stderr);
        // A client without a terminal of its own attaches to a container that has one, and back.
        assert_eq!(with_terminal(api.wanted, true), Wanted { stdin: true, ..terminal });
        assert_eq!(with_terminal(terminal, false), Wanted { stdout: true, ..Wanted::default() });
    }

    #[test]
    fn senseless_queries_are_refused() {
        assert!(Query::parse("command=sh").check(Purpose::Exec).is_err());
        assert!(Query::parse("stdout=1").check(Purpose::Exec).is_err());
        assert!(Query::parse("stdout=1").check(Purpose::Attach).is_ok());
        assert_eq!(decode("100%"), "100%");
        assert_eq!(decode("%zz%41"), "%zzA");
    }
}
