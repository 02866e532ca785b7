//! One HTTP GET, for probes and for looking around inside a cluster.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpStream};
use std::time::Duration;

use crate::resolve;

const MAX_ANSWER: u64 = 16 * 1024 * 1024;

/// Exit code 0 if the URL answers with 2xx or 3xx.
pub(crate) fn healthcheck(arguments: &[String]) -> Result<u8, String> {
    match get(arguments) {
        Ok((code @ 200..=399, _)) => {
            println!("{code}");
            Ok(0)
        }
        Ok((code, body)) => {
            println!("{code} {}", body.trim());
            Ok(1)
        }
        Err(error) => {
            println!("{error}");
            Ok(1)
        }
    }
}

/// Prints the body; exit code 0 if the code is 2xx.
pub(crate) fn print(arguments: &[String]) -> Result<u8, String> {
    let (code, body) = get(arguments)?;
    print!("{body}");
    Ok(u8::from(!(200..300).contains(&code)))
}

fn get(arguments: &[String]) -> Result<(u16, String), String> {
    let url = arguments.first().ok_or("which URL?")?;
    let rest = url.strip_prefix("http://").ok_or("only http:// is spoken here")?;
    let (authority, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, "/"),
    };
    let (host, port) = split_authority(authority)?;
    let address = match host.parse::<IpAddr>() {
        Ok(address) => address,
        Err(_) => resolve::address(host)?,
    };
    let timeout = Duration::from_secs(10);
    let mut stream = TcpStream::connect_timeout(&(address, port).into(), timeout)
        .map_err(|error| format!("{address}:{port}: {error}"))?;
    let _ = stream.set_read_timeout(Some(timeout));
    let request = format!("GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(|error| error.to_string())?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer).map_err(|error| error.to_string())?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("the answer is not HTTP")?;
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok((code.ok_or("the answer is not HTTP")?, body.to_owned()))
}

fn split_authority(authority: &str) -> Result<(&str, u16), String> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or("unclosed [ in the URL")?;
        return match rest.strip_prefix(':') {
            None => Ok((host, 80)),
            Some(port) => Ok((host, parse_port(port)?)),
        };
    }
    match authority.split_once(':') {
        None => Ok((authority, 80)),
        Some((host, port)) => Ok((host, parse_port(port)?)),
    }
}

fn parse_port(text: &str) -> Result<u16, String> {
    text.parse().map_err(|_| format!("{text} is no port"))
}

#[cfg(test)]
mod tests {
    use super::split_authority;

    #[test]
    fn authorities() {
        assert_eq!(split_authority("web:81"), Ok(("web", 81)));
        assert_eq!(split_authority("web"), Ok(("web", 80)));
        assert_eq!(split_authority("[::1]:81"), Ok(("::1", 81)));
        assert!(split_authority("web:x").is_err());
    }
}
