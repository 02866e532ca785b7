//! What becomes of one question: answered here at once, or with the help of others.
//!
//! Shared by all sockets. Knows neither sockets nor how the catalog is kept up to date.

use std::{
    net::IpAddr,
    sync::{
        PoisonError, RwLock, RwLockWriteGuard,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use hickory_proto::{
    op::ResponseCode,
    rr::{Name, RData, Record, RecordType, rdata::CNAME},
};
use ipnet::IpNet;

use crate::{
    answer::{Answer, CHANGING_TTL, Zone},
    catalog::Catalog,
    forward::Forwarder,
    metrics::Metrics,
    search::{Searchers, next_names},
    wire::{Asking, Parsed, Transport, parse},
};

/// How long the rest of a search path is looked at: askers wait 5 s for all of it.
const PATIENCE: Duration = Duration::from_secs(2);

/// Everything that answering needs.
pub(crate) struct Desk {
    pub(crate) zone: Zone,
    pub(crate) catalog: RwLock<Catalog>,
    /// How often the catalog was opened for a change: what was said before may not hold any more.
    pub(crate) generation: AtomicU64,
    pub(crate) searchers: RwLock<Searchers>,
    /// Whether the catalog is complete; until then, nothing may be said not to exist.
    pub(crate) complete: AtomicBool,
    pub(crate) forwarder: Forwarder,
    pub(crate) allow: Vec<IpNet>,
    pub(crate) ours: Vec<IpAddr>,
    pub(crate) turn: AtomicUsize,
    pub(crate) metrics: Metrics,
}

/// What becomes of a packet.
pub(crate) enum Next {
    /// This, and as long as the catalog stays as it is this or one of so many: 0 if it may not be said again.
    Reply {
        reply: Vec<u8>,
        turns: usize,
    },
    Nothing,
    /// Others must be asked.
    Ask(Box<Waiting>),
}

/// A question that waits for others.
pub(crate) enum Waiting {
    /// Somebody else knows.
    Forward(Asking),
    /// The answer goes on outside.
    Follow(Asking, Answer),
    /// The name does not exist, as the answer says; these come next on the asker's search path.
    Search(Asking, Answer, Vec<Name>),
}

impl Desk {
    /// Whether a peer may ask. A machine's questions to itself come from the address they go to,
    /// those through the Service from any other of its addresses: masquerading chooses it.
    pub(crate) fn allowed(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        peer.is_loopback()
            || self.ours.contains(&peer)
            || self.allow.iter().any(|network| network.contains(&peer))
            || is_of_this_machine(peer)
    }

    /// Opens the catalog for a change.
    pub(crate) fn change(&self) -> RwLockWriteGuard<'_, Catalog> {
        let catalog = self.catalog.write().unwrap_or_else(PoisonError::into_inner);
        // Answers are made under this lock: none of the old ones can be kept under the new number.
        self.generation.fetch_add(1, Ordering::AcqRel);
        catalog
    }

    /// Answers at once, or says what must be waited for.
    pub(crate) fn decide(&self, packet: &[u8], peer: IpAddr, transport: Transport) -> Next {
        self.metrics.asked(transport);
        let next = match parse(packet, transport) {
            Parsed::Asking(asking) => self.answer(asking, peer.to_canonical()),
            Parsed::Reply(reply) => once(reply),
            Parsed::Nothing => Next::Nothing,
        };
        if let Next::Reply { reply, .. } = &next {
            self.metrics.answered(reply);
        }
        next
    }

    fn answer(&self, asking: Asking, peer: IpAddr) -> Next {
        let name = asking.query.name();
        match self.known(name, asking.query.query_type()) {
            Some(_) if !self.complete.load(Ordering::Acquire) => {
                once(asking.failure(ResponseCode::ServFail))
            }
            Some(answer) if answer.follow.is_some() => wait(Waiting::Follow(asking, answer)),
            Some(answer) if answer.code == ResponseCode::NXDomain => {
                self.search(asking, answer, peer)
            }
            Some(answer) => {
                let turns = answer.answers.len().max(1);
                Next::Reply { reply: asking.reply(answer), turns }
            }
            None => match self.forwarder.remembered(&asking) {
                Some(reply) => {
                    self.metrics.remembered.inc();
                    once(reply)
                }
                None => wait(Waiting::Forward(asking)),
            },
        }
    }

    /// The cluster's answer; `None` if the name is not the cluster's.
    fn known(&self, name: &Name, kind: RecordType) -> Option<Answer> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let catalog = self.catalog.read().unwrap_or_else(PoisonError::into_inner);
        self.zone.answer(&catalog, name, kind, turn)
    }

    /// Goes along the asker's search path as far as the cluster's own names lead.
    fn search(&self, asking: Asking, absent: Answer, peer: IpAddr) -> Next {
        let kind = asking.query.query_type();
        if !matches!(kind, RecordType::A | RecordType::AAAA) {
            return once(asking.reply(absent));
        }
        let mut names = {
            let searchers = self.searchers.read().unwrap_or_else(PoisonError::into_inner);
            let Some(namespace) = searchers.namespace(peer) else {
                return once(asking.reply(absent));
            };
            let outside = self.forwarder.search_path();
            next_names(asking.query.name(), namespace, &self.zone.domain, &outside)
        };
        let mut own = 0;
        for name in &names {
            match self.known(name, kind) {
                None => break,
                Some(found) if found.code == ResponseCode::NXDomain => own += 1,
                Some(found) => {
                    self.metrics.searched.inc();
                    let answer = through_alias(&asking, name, found);
                    return match answer.follow {
                        Some(_) => wait(Waiting::Follow(asking, answer)),
                        None => once(asking.reply(answer)),
                    };
                }
            }
        }
        names.drain(..own);
        match names.is_empty() {
            true => once(asking.reply(absent)),
            false => wait(Waiting::Search(asking, absent, names)),
        }
    }

    /// Finishes what could not be answered at once.
    pub(crate) async fn finish(&self, waiting: Waiting, packet: &[u8]) -> Vec<u8> {
        let began = Instant::now();
        self.metrics.forwarded.inc();
        let reply = match waiting {
            Waiting::Forward(asking) => self.forwarder.forward(&asking, packet).await,
            Waiting::Follow(asking, answer) => self.go_on(asking, answer).await,
            Waiting::Search(asking, absent, names) => {
                self.search_outside(asking, absent, names).await
            }
        };
        self.metrics.took(began.elapsed());
        self.metrics.answered(&reply);
        reply
    }

    async fn go_on(&self, asking: Asking, mut answer: Answer) -> Vec<u8> {
        let Some(target) = answer.follow.take() else { return asking.reply(answer) };
        match self.forwarder.resolve(target, asking.query.query_type()).await {
            Some(message) => {
                answer.code = message.metadata.response_code;
                answer.answers.extend(message.answers);
                asking.reply(answer)
            }
            None => asking.failure(ResponseCode::ServFail),
        }
    }

    /// What cannot be found out is left to the asker, who goes along the path by itself.
    async fn search_outside(&self, asking: Asking, absent: Answer, names: Vec<Name>) -> Vec<u8> {
        let until = tokio::time::Instant::now() + PATIENCE;
        for name in names {
            let asked = self.forwarder.resolve(name.clone(), asking.query.query_type());
            let Ok(found) = tokio::time::timeout_at(until, asked).await else { break };
            match found.as_ref().map(|message| message.metadata.response_code) {
                Some(ResponseCode::NXDomain) => {}
                Some(ResponseCode::NoError) => {
                    let Some(message) = found else { break };
                    self.metrics.searched.inc();
                    let found = Answer {
                        answers: message.answers.clone(),
                        authorities: message.authorities.clone(),
                        ..Answer::default()
                    };
                    return asking.reply(through_alias(&asking, &name, found));
                }
                _ => break,
            }
        }
        asking.reply(absent)
    }
}

/// A reply that holds for this asker and this moment.
fn once(reply: Vec<u8>) -> Next {
    Next::Reply { reply, turns: 0 }
}

fn wait(waiting: Waiting) -> Next {
    Next::Ask(Box::new(waiting))
}

/// An answer about `name` to a question about another.
fn through_alias(asking: &Asking, name: &Name, found: Answer) -> Answer {
    let alias = RData::CNAME(CNAME(name.clone()));
    let mut answers = vec![Record::from_rdata(asking.query.name().clone(), CHANGING_TTL, alias)];
    answers.extend(found.answers);
    Answer { answers, ..found }
}

/// Whether an address belongs to this machine: only then can it be bound. The kernel drops packets
/// from outside that claim such a source.
fn is_of_this_machine(address: IpAddr) -> bool {
    std::net::UdpSocket::bind((address, 0)).is_ok()
}
