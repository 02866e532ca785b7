//! A small DNS client: the C library's resolver does not work in a static executable, and
//! tests want to see what the cluster's DNS answers. Follows `/etc/resolv.conf`.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const A: u16 = 1;
const CNAME: u16 = 5;
const PTR: u16 = 12;
const AAAA: u16 = 28;
const SRV: u16 = 33;

#[derive(Debug, Default, PartialEq, Eq)]
struct Config {
    servers: Vec<IpAddr>,
    search: Vec<String>,
    ndots: usize,
}

/// One answer record: type and text.
type Record = (u16, String);

/// `resolve NAME [TYPE]`: one record a line; exit code 1 if there is none.
pub(crate) fn command(arguments: &[String]) -> Result<u8, String> {
    let name = arguments.first().ok_or("which name?")?;
    let kind = match arguments.get(1).map_or("A", String::as_str) {
        "A" => A,
        "AAAA" => AAAA,
        "SRV" => SRV,
        "PTR" => PTR,
        "CNAME" => CNAME,
        other => return Err(format!("unknown record type {other}")),
    };
    let records = lookup(name, kind)?;
    for (_, text) in records.iter().filter(|(found, _)| *found == kind) {
        println!("{text}");
    }
    Ok(u8::from(records.is_empty()))
}

/// The first address of `name`.
pub(crate) fn address(name: &str) -> Result<IpAddr, String> {
    if name == "localhost" {
        return Ok(Ipv4Addr::LOCALHOST.into());
    }
    for kind in [A, AAAA] {
        let records = lookup(name, kind)?;
        let found = records.iter().find(|(found, _)| *found == kind);
        if let Some(address) = found.and_then(|(_, text)| text.parse().ok()) {
            return Ok(address);
        }
    }
    Err(format!("{name}: no such name"))
}

fn lookup(name: &str, kind: u16) -> Result<Vec<Record>, String> {
    let text = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let config = parse_config(&text);
    let mut last = format!("{name}: no DNS server is configured");
    for candidate in candidates(name, &config) {
        for server in &config.servers {
            match ask(*server, &candidate, kind) {
                Ok(records) if records.is_empty() => {
                    last = format!("{name}: no such name");
                    break;
                }
                Ok(records) => return Ok(records),
                Err(error) => last = format!("{server}: {error}"),
            }
        }
    }
    if last.ends_with("no such name") { Ok(Vec::new()) } else { Err(last) }
}

fn parse_config(text: &str) -> Config {
    let mut config = Config { ndots: 1, ..Config::default() };
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => {
                config.servers.extend(words.next().and_then(|word| word.parse::<IpAddr>().ok()));
            }
            Some("search") => config.search = words.map(str::to_owned).collect(),
            Some("options") => {
                let dots = words.find_map(|word| word.strip_prefix("ndots:"));
                config.ndots = dots.and_then(|dots| dots.parse().ok()).unwrap_or(config.ndots);
            }
            _ => {}
        }
    }
    config
}

fn candidates(name: &str, config: &Config) -> Vec<String> {
    if let Some(absolute) = name.strip_suffix('.') {
        return vec![absolute.to_owned()];
    }
    let searched = config.search.iter().map(|domain| format!("{name}.{domain}"));
    let plain = std::iter::once(name.to_owned());
    if name.matches('.').count() >= config.ndots {
        plain.chain(searched).collect()
    } else {
        searched.chain(plain).collect()
    }
}

fn ask(server: IpAddr, name: &str, kind: u16) -> Result<Vec<Record>, String> {
    let local: IpAddr = match server {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((local, 0)).map_err(|error| error.to_string())?;
    socket.connect(SocketAddr::new(server, 53)).map_err(|error| error.to_string())?;
    let _ = socket.set_read_timeout(Some(Duration::from_secs(2)));
    let id = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.subsec_micros());
    let id = u16::try_from(id & 0xffff).unwrap_or(0);
    let query = encode(id, name, kind).ok_or_else(|| format!("{name} is no DNS name"))?;
    let mut buffer = [0; 4096];
    let mut last = String::new();
    for _ in 0..2 {
        socket.send(&query).map_err(|error| error.to_string())?;
        match socket.recv(&mut buffer) {
            Ok(count) => return decode(&buffer[..count], id).ok_or("malformed answer".to_owned()),
            Err(error) => last = error.to_string(),
        }
    }
    Err(last)
}

fn encode(id: u16, name: &str, kind: u16) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    out.extend(id.to_be_bytes());
    out.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        if label.is_empty() || label.len() > 63 {
            return None;
        }
        out.push(u8::try_from(label.len()).ok()?);
        out.extend(label.bytes());
    }
    out.push(0);
    out.extend(kind.to_be_bytes());
    out.extend([0, 1]);
    Some(out)
}

/// The records of an answer; none if the name does not exist.
fn decode(message: &[u8], id: u16) -> Option<Vec<Record>> {
    let word = |at: usize| Some(u16::from_be_bytes([*message.get(at)?, *message.get(at + 1)?]));
    if word(0)? != id {
        return None;
    }
    match message.get(3)? & 15 {
        0 => {}
        3 => return Some(Vec::new()),
        _ => return None,
    }
    let (questions, answers) = (word(4)?, word(6)?);
    let mut at = 12;
    for _ in 0..questions {
        at = name_at(message, at)?.1 + 4;
    }
    let mut records = Vec::new();
    for _ in 0..answers {
        let data = name_at(message, at)?.1 + 10;
        let (kind, length) = (word(data - 10)?, usize::from(word(data - 2)?));
        let bytes = message.get(data..data + length)?;
        let text = match kind {
            A => Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).to_string(),
            AAAA => Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).to_string(),
            CNAME | PTR => name_at(message, data)?.0,
            SRV => {
                let target = name_at(message, data + 6)?.0;
                format!("{} {} {} {target}", word(data)?, word(data + 2)?, word(data + 4)?)
            }
            _ => String::new(),
        };
        records.push((kind, text));
        at = data + length;
    }
    Some(records)
}

/// The name at `at` and where what follows it begins.
fn name_at(message: &[u8], mut at: usize) -> Option<(String, usize)> {
    let mut name = String::new();
    let mut end = None;
    for _ in 0..128 {
        let length = usize::from(*message.get(at)?);
        if length & 0xc0 == 0xc0 {
            let low = usize::from(*message.get(at + 1)?);
            end.get_or_insert(at + 2);
            at = (length & 0x3f) << 8 | low;
            continue;
        }
        if length == 0 {
            return Some((name, end.unwrap_or(at + 1)));
        }
        let label = message.get(at + 1..at + 1 + length)?;
        name.push_str(&String::from_utf8_lossy(label));
        name.push('.');
        at += 1 + length;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn search_order() {
        let config = parse_config(
            "nameserver 10.96.0.10\nsearch a.svc.cluster.local svc.cluster.local\noptions ndots:5\n",
        );
        assert_eq!(config.servers.len(), 1);
        assert_eq!(
            candidates("web", &config),
            ["web.a.svc.cluster.local", "web.svc.cluster.local", "web"]
        );
        assert_eq!(candidates("web.", &config), ["web"]);
        assert_eq!(candidates("a.b.c.d.e.f", &config)[0], "a.b.c.d.e.f");
    }

    #[test]
    fn answers() {
        let mut message = encode(7, "web.local", A).unwrap();
        message[2] = 0x81;
        message[7] = 1;
        message.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 10, 96, 0, 1]);
        assert_eq!(decode(&message, 7), Some(vec![(A, "10.96.0.1".to_owned())]));
        assert_eq!(decode(&message, 8), None);
        message[3] = 3;
        assert_eq!(decode(&message, 7), Some(Vec::new()));
        assert_eq!(decode(&message[..20], 7), Some(Vec::new()));
        assert_eq!(decode(&[0, 7], 7), None);
        // A name that points at itself ends.
        let mut looping = vec![0; 12];
        looping.extend([0xc0, 12]);
        assert_eq!(name_at(&looping, 12), None);
    }
}
