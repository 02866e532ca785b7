//! What to answer to a question about the cluster's names.
//!
//! Pure: catalog and question in, records out. Distinguishes "no such name" from "the name has no
//! such record", on which resolvers with search paths depend.

use std::net::IpAddr;

use hickory_proto::{
    op::ResponseCode,
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT},
    },
};
use ipnet::IpNet;

use crate::{
    catalog::{Catalog, Endpoint, Kind, Known, Port},
    names::{Asked, understand},
};

/// Seconds for which a cluster IP may be remembered.
const STABLE_TTL: u32 = 30;
/// Seconds for which endpoints, and the absence of anything, may be remembered.
pub(crate) const CHANGING_TTL: u32 = 5;
/// Version of the specification that is followed.
const SCHEMA_VERSION: &str = "1.1.0";

/// The part of the answer that concerns the question.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Answer {
    pub(crate) code: ResponseCode,
    pub(crate) answers: Vec<Record>,
    pub(crate) authorities: Vec<Record>,
    pub(crate) additionals: Vec<Record>,
    /// A name outside the cluster at which the answer goes on.
    pub(crate) follow: Option<Name>,
}

/// The cluster's zone.
#[derive(Debug, Clone)]
pub(crate) struct Zone {
    pub(crate) domain: Name,
    labels: Vec<String>,
    /// Cluster IPs of the DNS's own Service.
    pub(crate) service_ips: Vec<IpAddr>,
    pub(crate) own_networks: Vec<IpNet>,
}

impl Zone {
    /// The zone of `domain`, written without a trailing dot; `None` if it is no domain.
    pub(crate) fn new(
        domain: &str,
        service_ips: Vec<IpAddr>,
        own_networks: Vec<IpNet>,
    ) -> Option<Self> {
        let labels: Vec<String> = domain
            .trim_end_matches('.')
            .to_ascii_lowercase()
            .split('.')
            .map(str::to_owned)
            .collect();
        let domain = name(&labels)?;
        (!domain.is_root()).then_some(Self { domain, labels, service_ips, own_networks })
    }

    /// Answers a question; `None` if it is not about the cluster. `turn` rotates records, so that
    /// clients that take the first are spread.
    pub(crate) fn answer(
        &self,
        catalog: &Catalog,
        asked: &Name,
        kind: RecordType,
        turn: usize,
    ) -> Option<Answer> {
        let labels: Vec<String> =
            asked.iter().map(|label| String::from_utf8_lossy(label).to_ascii_lowercase()).collect();
        let question = Question { zone: self, catalog, asked, kind, turn, alias: false };
        question.answer(&labels)
    }

    /// Answers for the target of an alias.
    fn answer_alias(&self, catalog: &Catalog, target: &Name, kind: RecordType) -> Option<Answer> {
        let labels: Vec<String> = target
            .iter()
            .map(|label| String::from_utf8_lossy(label).to_ascii_lowercase())
            .collect();
        let question = Question { zone: self, catalog, asked: target, kind, turn: 0, alias: true };
        question.answer(&labels)
    }

    fn soa(&self) -> Record {
        let server = self.below(&["ns", "dns"]);
        let contact = self.below(&["hostmaster"]);
        let (refresh, retry, expire) = (7200, 1800, 86_400);
        let soa = SOA::new(server, contact, 1, refresh, retry, expire, CHANGING_TTL);
        Record::from_rdata(self.domain.clone(), CHANGING_TTL, RData::SOA(soa))
    }

    /// A name below the domain. What does not fit into a name becomes the domain itself.
    fn below<S: AsRef<str>>(&self, labels: &[S]) -> Name {
        let all = labels.iter().map(|label| label.as_ref().as_bytes().to_vec());
        let all = all.chain(self.labels.iter().map(|label| label.as_bytes().to_vec()));
        let mut name = Name::from_labels(all).unwrap_or_else(|_| self.domain.clone());
        name.set_fqdn(true);
        name
    }
}

fn address(address: IpAddr) -> RData {
    match address {
        IpAddr::V4(address) => RData::A(A(address)),
        IpAddr::V6(address) => RData::AAAA(AAAA(address)),
    }
}

fn name(labels: &[String]) -> Option<Name> {
    let mut name = Name::from_labels(labels.iter().map(|label| label.as_bytes().to_vec())).ok()?;
    name.set_fqdn(true);
    Some(name)
}

struct Question<'a> {
    zone: &'a Zone,
    catalog: &'a Catalog,
    asked: &'a Name,
    kind: RecordType,
    turn: usize,
    /// Whether an alias led here; a second one is not followed, since it could be a circle.
    alias: bool,
}

impl Question<'_> {
    fn answer(&self, labels: &[String]) -> Option<Answer> {
        Some(match understand(labels, &self.zone.labels) {
            Asked::Outside => return None,
            Asked::Apex => self.apex(),
            Asked::Version if self.kind == RecordType::TXT => {
                let version = TXT::new(vec![SCHEMA_VERSION.to_owned()]);
                self.records(STABLE_TTL, [RData::TXT(version)])
            }
            Asked::Version | Asked::Branch => self.no_data(),
            Asked::NameServer => self.addresses(STABLE_TTL, &self.zone.service_ips),
            Asked::Namespace(namespace) if self.catalog.has_namespace(namespace) => self.no_data(),
            Asked::Namespace(_) | Asked::Nothing => self.no_name(),
            Asked::Service { namespace, service } => self.service(namespace, service),
            Asked::Endpoint { namespace, service, endpoint } => {
                self.endpoint(namespace, service, endpoint)
            }
            Asked::Port { namespace, service, port, protocol } => {
                self.port(namespace, service, Some((port, protocol)))
            }
            Asked::Protocol { namespace, service, protocol } => {
                let known = self.catalog.service(namespace, service);
                let named = |port: &Port| port.protocol == protocol && !port.name.is_empty();
                match known.is_some_and(|known| known.ports.iter().any(named)) {
                    true => self.no_data(),
                    false => self.no_name(),
                }
            }
            Asked::Pod { namespace, address } => match self.catalog.has_namespace(namespace) {
                true => self.addresses(CHANGING_TTL, &[address]),
                false => self.no_name(),
            },
            Asked::Reverse(address) => return self.reverse(address),
        })
    }

    fn apex(&self) -> Answer {
        match self.kind {
            RecordType::SOA => Answer { answers: vec![self.zone.soa()], ..Answer::default() },
            RecordType::NS => {
                let server = self.zone.below(&["ns", "dns"]);
                let mut answer = self.records(STABLE_TTL, [RData::NS(NS(server.clone()))]);
                let addresses = self.zone.service_ips.iter().copied().map(address);
                let glue = |data| Record::from_rdata(server.clone(), STABLE_TTL, data);
                answer.additionals.extend(addresses.map(glue));
                answer
            }
            _ => self.no_data(),
        }
    }

    fn service(&self, namespace: &str, service: &str) -> Answer {
        let Some(known) = self.catalog.service(namespace, service) else { return self.no_name() };
        match &known.kind {
            Kind::External(target) => self.external(target),
            _ if self.kind == RecordType::SRV => self.port(namespace, service, None),
            Kind::Address(addresses) => self.addresses(STABLE_TTL, addresses),
            Kind::Headless => {
                let endpoints = self.catalog.endpoints(namespace, service);
                if endpoints.is_empty() {
                    return self.no_name();
                }
                let mut addresses: Vec<IpAddr> =
                    endpoints.iter().map(|endpoint| endpoint.address).collect();
                addresses.sort();
                addresses.dedup();
                self.addresses(CHANGING_TTL, &addresses)
            }
        }
    }

    fn external(&self, target: &str) -> Answer {
        let labels: Vec<String> =
            target.trim_end_matches('.').split('.').map(str::to_owned).collect();
        let Some(target) = name(&labels) else { return self.no_name() };
        let alias = RData::CNAME(CNAME(target.clone()));
        let mut answer = Answer {
            answers: vec![Record::from_rdata(self.asked.clone(), CHANGING_TTL, alias)],
            ..Answer::default()
        };
        if self.kind == RecordType::CNAME || self.alias {
            return answer;
        }
        match self.zone.answer_alias(self.catalog, &target, self.kind) {
            None => answer.follow = Some(target),
            Some(inner) => {
                answer.answers.extend(inner.answers);
                answer.authorities = inner.authorities;
                answer.code = inner.code;
            }
        }
        answer
    }

    fn endpoint(&self, namespace: &str, service: &str, wanted: &str) -> Answer {
        if self.catalog.service(namespace, service).is_none() {
            return self.no_name();
        }
        let mut addresses: Vec<IpAddr> = self
            .catalog
            .endpoints(namespace, service)
            .iter()
            .filter(|endpoint| endpoint.name == wanted)
            .map(|endpoint| endpoint.address)
            .collect();
        addresses.sort();
        addresses.dedup();
        match addresses.is_empty() {
            true => self.no_name(),
            false => self.addresses(CHANGING_TTL, &addresses),
        }
    }

    /// SRV records of one named port, or of all ports.
    fn port(&self, namespace: &str, service: &str, wanted: Option<(&str, &str)>) -> Answer {
        let Some(known) = self.catalog.service(namespace, service) else { return self.no_name() };
        let matches = |port: &&Port| match wanted {
            Some((name, protocol)) => port.name == name && port.protocol == protocol,
            None => true,
        };
        let found = match &known.kind {
            Kind::External(_) => Vec::new(),
            Kind::Address(addresses) => {
                self.service_ports(namespace, service, known, addresses, matches)
            }
            Kind::Headless => self.endpoint_ports(namespace, service, matches),
        };
        if found.is_empty() {
            return match wanted {
                Some(_) => self.no_name(),
                None if known.kind == Kind::Headless
                    && self.catalog.endpoints(namespace, service).is_empty() =>
                {
                    self.no_name()
                }
                None => self.no_data(),
            };
        }
        if self.kind != RecordType::SRV {
            return self.no_data();
        }
        let ttl = if known.kind == Kind::Headless { CHANGING_TTL } else { STABLE_TTL };
        let weight = u16::try_from(100 / found.len().max(1)).unwrap_or(1).max(1);
        let mut answer = Answer::default();
        for (target, port, addresses) in found {
            let data = RData::SRV(SRV::new(0, weight, port, target.clone()));
            answer.answers.push(Record::from_rdata(self.asked.clone(), ttl, data));
            for of_target in addresses {
                let record = Record::from_rdata(target.clone(), ttl, address(of_target));
                if !answer.additionals.contains(&record) {
                    answer.additionals.push(record);
                }
            }
        }
        self.rotate(&mut answer.answers);
        answer
    }

    fn service_ports(
        &self,
        namespace: &str,
        service: &str,
        known: &Known,
        addresses: &[IpAddr],
        matches: impl Fn(&&Port) -> bool,
    ) -> Vec<(Name, u16, Vec<IpAddr>)> {
        let target = self.zone.below(&[service, namespace, "svc"]);
        let ports = known.ports.iter().filter(matches);
        ports.map(|port| (target.clone(), port.number, addresses.to_vec())).collect()
    }

    fn endpoint_ports(
        &self,
        namespace: &str,
        service: &str,
        matches: impl Fn(&&Port) -> bool,
    ) -> Vec<(Name, u16, Vec<IpAddr>)> {
        let mut found = Vec::new();
        for endpoint in self.catalog.endpoints(namespace, service) {
            let Endpoint { address, name, ports } = endpoint;
            let target = self.zone.below(&[name, service, namespace, "svc"]);
            for port in ports.iter().filter(&matches) {
                found.push((target.clone(), port.number, vec![*address]));
            }
        }
        found
    }

    /// Reverse names of the cluster's networks are ours; others may be, by chance, too.
    fn reverse(&self, address: IpAddr) -> Option<Answer> {
        let names = self.catalog.names_of(address);
        let ours = self.zone.own_networks.iter().any(|network| network.contains(&address));
        match (names.is_empty(), ours) {
            (true, false) => None,
            (true, true) => Some(self.no_name()),
            (false, _) if self.kind != RecordType::PTR => Some(self.no_data()),
            (false, _) => {
                let names = names.iter().map(|labels| RData::PTR(PTR(self.zone.below(labels))));
                Some(self.records(CHANGING_TTL, names))
            }
        }
    }

    fn addresses(&self, ttl: u32, addresses: &[IpAddr]) -> Answer {
        let wanted = |data: &RData| self.kind == RecordType::ANY || self.kind == data.record_type();
        let data: Vec<RData> = addresses.iter().copied().map(address).filter(wanted).collect();
        if data.is_empty() {
            return self.no_data();
        }
        let mut answer = self.records(ttl, data);
        self.rotate(&mut answer.answers);
        answer
    }

    fn records(&self, ttl: u32, data: impl IntoIterator<Item = RData>) -> Answer {
        let record = |data| Record::from_rdata(self.asked.clone(), ttl, data);
        Answer { answers: data.into_iter().map(record).collect(), ..Answer::default() }
    }

    fn rotate(&self, records: &mut [Record]) {
        if !records.is_empty() {
            let by = self.turn % records.len();
            records.rotate_left(by);
        }
    }

    fn no_data(&self) -> Answer {
        Answer { authorities: vec![self.zone.soa()], ..Answer::default() }
    }

    fn no_name(&self) -> Answer {
        Answer {
            code: ResponseCode::NXDomain,
            authorities: vec![self.zone.soa()],
            ..Answer::default()
        }
    }
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
