//! Small commands for containers without a shell: each a function of its arguments.

use std::fs;
use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket};
use std::thread;
use std::time::Duration;

use crate::{pages, signals};

type Outcome = Result<u8, String>;

/// Runs `command`; `None` if there is no such command.
pub(crate) fn run(command: &str, arguments: &[String]) -> Option<Outcome> {
    Some(match command {
        "wait" => wait(arguments),
        "sleep" => sleep(arguments),
        "crash" => crash(arguments),
        "print" => print(arguments),
        "cat" => cat(arguments),
        "ls" => list(arguments),
        "write" => write(arguments),
        "env" => environment(),
        "echo-stdin" => echo(),
        "terminal" => terminal(),
        "burn" => number(arguments, 0, 1000).map(|millis| {
            pages::burn(Duration::from_millis(millis));
            0
        }),
        "allocate" => allocate(arguments),
        "tcp" => tcp(arguments),
        "udp" => udp(arguments),
        _ => return None,
    })
}

/// Argument `index` as a number, or `default` if it is not there.
fn number(arguments: &[String], index: usize, default: u64) -> Result<u64, String> {
    match arguments.get(index) {
        None => Ok(default),
        Some(text) => text.parse().map_err(|_| format!("{text} is no number")),
    }
}

/// The first argument as a port.
pub(crate) fn port(arguments: &[String]) -> Result<u16, String> {
    let text = arguments.first().ok_or("which port?")?;
    text.parse().map_err(|_| format!("{text} is no port"))
}

/// Listens on `port` of all addresses, IPv6 and IPv4 where there is IPv6.
pub(crate) fn listen(port: u16) -> Result<TcpListener, String> {
    TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))
        .or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))
        .map_err(|error| format!("cannot listen on port {port}: {error}"))
}

fn wait(arguments: &[String]) -> Outcome {
    if arguments.first().map(String::as_str) == Some("--ignore-term") {
        signals::ignore_termination();
        println!("waiting for SIGKILL");
        loop {
            thread::park();
        }
    }
    let mut signal = signals::termination().map_err(|error| error.to_string())?;
    println!("waiting for SIGTERM");
    let _ = signal.read(&mut [0]);
    println!("terminated");
    Ok(0)
}

fn sleep(arguments: &[String]) -> Outcome {
    let time = Duration::from_secs(number(arguments, 0, 1)?);
    let mut signal = signals::termination().map_err(|error| error.to_string())?;
    signal.set_read_timeout(Some(time)).map_err(|error| error.to_string())?;
    // Timing out is sleeping to the end; a byte is a signal.
    let woken = signal.read(&mut [0]).is_ok();
    Ok(if woken { 143 } else { 0 })
}

fn crash(arguments: &[String]) -> Outcome {
    let code = number(arguments, 0, 1)?;
    thread::sleep(Duration::from_millis(number(arguments, 1, 0)?));
    eprintln!("crashing with {code}");
    u8::try_from(code).map_err(|_| format!("{code} is no exit code"))
}

fn print(arguments: &[String]) -> Outcome {
    let (count, pause) = (number(arguments, 0, 10)?, number(arguments, 1, 0)?);
    let size = usize::try_from(number(arguments, 2, 0)?.min(1024 * 1024)).unwrap_or(0);
    let mut out = io::stdout().lock();
    for index in 1..=count {
        let line = format!("line {index}");
        writeln!(out, "{line:.<size$}").map_err(|error| error.to_string())?;
        if pause > 0 {
            out.flush().map_err(|error| error.to_string())?;
            thread::sleep(Duration::from_millis(pause));
        }
    }
    Ok(0)
}

fn cat(arguments: &[String]) -> Outcome {
    let mut out = io::stdout().lock();
    if arguments.is_empty() {
        io::copy(&mut io::stdin().lock(), &mut out).map_err(|error| error.to_string())?;
    }
    for path in arguments {
        let mut file = fs::File::open(path).map_err(|error| format!("{path}: {error}"))?;
        io::copy(&mut file, &mut out).map_err(|error| format!("{path}: {error}"))?;
    }
    Ok(0)
}

fn list(arguments: &[String]) -> Outcome {
    let dir = arguments.first().map_or(".", String::as_str);
    let entries = fs::read_dir(dir).map_err(|error| format!("{dir}: {error}"))?;
    let mut lines: Vec<String> = entries
        .flatten()
        .map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            match fs::read_link(entry.path()) {
                Ok(target) => format!("{name} -> {}", target.display()),
                Err(_) if entry.path().is_dir() => format!("{name}/"),
                Err(_) => name,
            }
        })
        .collect();
    lines.sort();
    for line in lines {
        println!("{line}");
    }
    Ok(0)
}

fn write(arguments: &[String]) -> Outcome {
    let [path, text] = arguments else { return Err("write FILE TEXT".to_owned()) };
    fs::write(path, format!("{text}\n")).map_err(|error| format!("{path}: {error}"))?;
    Ok(0)
}

fn environment() -> Outcome {
    let mut lines: Vec<String> = std::env::vars_os()
        .map(|(name, value)| format!("{}={}", name.to_string_lossy(), value.to_string_lossy()))
        .collect();
    lines.sort();
    for line in lines {
        println!("{line}");
    }
    Ok(0)
}

fn echo() -> Outcome {
    let mut out = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        let line = line.map_err(|error| error.to_string())?;
        writeln!(out, "you said: {line}").map_err(|error| error.to_string())?;
        out.flush().map_err(|error| error.to_string())?;
        if line.trim() == "exit" {
            break;
        }
    }
    Ok(0)
}

fn terminal() -> Outcome {
    if !io::stdin().is_terminal() {
        println!("no terminal");
        return Ok(1);
    }
    match signals::terminal_size(&io::stdin()) {
        Some((rows, columns)) => println!("terminal of {rows} rows and {columns} columns"),
        None => println!("terminal of unknown size"),
    }
    Ok(0)
}

fn allocate(arguments: &[String]) -> Outcome {
    let mebibytes = number(arguments, 0, 1)?;
    let mut held = Vec::new();
    for index in 1..=mebibytes {
        // Written to, so that the pages are really there.
        held.push(vec![1_u8; 1024 * 1024]);
        println!("{index} MiB");
    }
    let outcome = wait(&[]);
    drop(held);
    outcome
}

fn tcp(arguments: &[String]) -> Outcome {
    const MAX: usize = 64;
    let listener = listen(port(arguments)?)?;
    let slots = std::sync::Arc::new(());
    for stream in listener.incoming().flatten() {
        if std::sync::Arc::strong_count(&slots) > MAX {
            continue;
        }
        let slot = std::sync::Arc::clone(&slots);
        thread::spawn(move || {
            let _slot = slot;
            let _ = stream.set_read_timeout(Some(Duration::from_secs(300)));
            let _ = io::copy(&mut &stream, &mut &stream);
        });
    }
    Ok(0)
}

fn udp(arguments: &[String]) -> Outcome {
    let port = port(arguments)?;
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port))
        .map_err(|error| format!("cannot listen on port {port}: {error}"))?;
    let mut buffer = [0; 65_535];
    loop {
        let (count, peer) = socket.recv_from(&mut buffer).map_err(|error| error.to_string())?;
        let _ = socket.send_to(&buffer[..count], peer);
    }
}
