//! DNS messages: reading questions and writing answers within the size the asker can take.
//!
//! Knows the protocol (RFC 1035, 6891) and nothing of where answers come from.

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{DNSClass, Name, RecordType},
    serialize::binary::{BinEncodable, BinEncoder},
};

use crate::answer::Answer;

/// What we are willing to send in one datagram: what passes everywhere unfragmented.
const DATAGRAM_BYTES: u16 = 1232;
/// What everybody takes in one datagram.
const OLD_DATAGRAM_BYTES: u16 = 512;
const HEADER_BYTES: usize = 12;
const RESPONSE_BIT: u8 = 0x80;
const TRUNCATED_BIT: u8 = 0x02;

/// How a question came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Udp,
    Tcp,
}

/// One question and what its answer must take over from it.
#[derive(Debug, Clone)]
pub(crate) struct Asking {
    pub(crate) id: u16,
    pub(crate) query: Query,
    recursion_desired: bool,
    pub(crate) checking_disabled: bool,
    /// Largest datagram the asker takes, if it said so, and whether it wants DNSSEC records.
    edns: Option<(u16, bool)>,
    pub(crate) transport: Transport,
}

/// What a packet turned out to be.
pub(crate) enum Parsed {
    /// A question.
    Asking(Asking),
    /// Something to be answered by this.
    Reply(Vec<u8>),
    /// Something not to be answered.
    Nothing,
}

/// Reads a packet.
pub(crate) fn parse(packet: &[u8], transport: Transport) -> Parsed {
    let Some(header) = packet.first_chunk::<HEADER_BYTES>() else { return Parsed::Nothing };
    if header[2] & RESPONSE_BIT != 0 {
        return Parsed::Nothing;
    }
    let id = u16::from_be_bytes([header[0], header[1]]);
    let op_code = OpCode::from_u8(header[2] >> 3 & 0xf);
    let error = |code| match Message::error_msg(id, op_code, code).to_vec() {
        Ok(bytes) => Parsed::Reply(bytes),
        Err(_) => Parsed::Nothing,
    };
    if op_code != OpCode::Query {
        return error(ResponseCode::NotImp);
    }
    // Exactly one question; looked at first, so that counts cannot make us reserve memory.
    if header[4..6] != [0, 1] || header[6..8] != [0, 0] {
        return error(ResponseCode::FormErr);
    }
    let Ok(message) = Message::from_vec(packet) else { return error(ResponseCode::FormErr) };
    let Some(query) = message.queries.first().cloned() else {
        return error(ResponseCode::FormErr);
    };
    let edns = message.edns.as_ref().map(|edns| (edns.max_payload(), edns.flags().dnssec_ok));
    let asking = Asking {
        id,
        recursion_desired: message.metadata.recursion_desired,
        checking_disabled: message.metadata.checking_disabled,
        query,
        edns,
        transport,
    };
    if asking.query.query_class() != DNSClass::IN {
        return Parsed::Reply(asking.failure(ResponseCode::Refused));
    }
    Parsed::Asking(asking)
}

impl Asking {
    /// A question of our own.
    pub(crate) fn own(name: Name, kind: RecordType) -> Self {
        Self {
            id: rand::random(),
            query: Query::query(name, kind),
            recursion_desired: true,
            checking_disabled: false,
            edns: None,
            transport: Transport::Udp,
        }
    }

    /// Whether it wants DNSSEC records.
    pub(crate) fn wants_dnssec(&self) -> bool {
        self.edns.is_some_and(|(_, wants)| wants)
    }

    /// The question as a packet.
    pub(crate) fn packet(&self) -> Vec<u8> {
        let mut message = Message::new(self.id, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = self.recursion_desired;
        message.add_query(self.query.clone());
        message.to_vec().unwrap_or_default()
    }

    /// The answer from the cluster's own names.
    pub(crate) fn reply(&self, answer: Answer) -> Vec<u8> {
        let mut message = self.response();
        message.metadata.authoritative = true;
        message.metadata.response_code = answer.code;
        message.answers = answer.answers;
        message.authorities = answer.authorities;
        message.additionals = answer.additionals;
        self.encode(&message)
    }

    /// The answer that somebody else gave to the same question before.
    pub(crate) fn repeat(&self, from: &Message) -> Vec<u8> {
        let mut message = self.response();
        message.metadata.response_code = from.metadata.response_code;
        message.answers = from.answers.clone();
        message.authorities = from.authorities.clone();
        message.additionals = from.additionals.clone();
        self.encode(&message)
    }

    /// An answer that says why there is none.
    pub(crate) fn failure(&self, code: ResponseCode) -> Vec<u8> {
        let mut message = self.response();
        message.metadata.response_code = code;
        self.encode(&message)
    }

    fn response(&self) -> Message {
        let mut message = Message::response(self.id, OpCode::Query);
        message.metadata.recursion_desired = self.recursion_desired;
        message.metadata.recursion_available = true;
        message.metadata.checking_disabled = self.checking_disabled;
        message.add_query(self.query.clone());
        if self.edns.is_some() {
            let mut edns = Edns::new();
            edns.set_max_payload(DATAGRAM_BYTES);
            message.set_edns(edns);
        }
        message
    }

    /// What does not fit is left out and the answer marked truncated.
    fn encode(&self, message: &Message) -> Vec<u8> {
        let limit = match (self.transport, self.edns) {
            (Transport::Tcp, _) => u16::MAX,
            (Transport::Udp, None) => OLD_DATAGRAM_BYTES,
            (Transport::Udp, Some((payload, _))) => {
                payload.clamp(OLD_DATAGRAM_BYTES, DATAGRAM_BYTES)
            }
        };
        let mut bytes = Vec::new();
        let mut encoder = BinEncoder::new(&mut bytes);
        encoder.set_max_size(limit);
        match message.emit(&mut encoder) {
            Ok(()) => bytes,
            Err(error) => {
                tracing::debug!(%error, "cannot encode an answer");
                Message::error_msg(self.id, OpCode::Query, ResponseCode::ServFail)
                    .to_vec()
                    .unwrap_or_default()
            }
        }
    }
}

/// Whether `response` answers the question in `request`, under `id`.
pub(crate) fn answers(request: &[u8], response: &[u8], id: u16) -> bool {
    let Some(end) = question_end(request) else { return false };
    response.len() >= end
        && response[0..2] == id.to_be_bytes()
        && response[2] & RESPONSE_BIT != 0
        && response[4..6] == [0, 1]
        && response[HEADER_BYTES..end].eq_ignore_ascii_case(&request[HEADER_BYTES..end])
}

/// Whether an answer is marked truncated.
pub(crate) fn truncated(response: &[u8]) -> bool {
    response.get(2).is_some_and(|flags| flags & TRUNCATED_BIT != 0)
}

/// Sets the identifier of a packet.
pub(crate) fn set_id(packet: &mut [u8], id: u16) {
    if let Some(place) = packet.get_mut(0..2) {
        place.copy_from_slice(&id.to_be_bytes());
    }
}

/// Where the first question ends: after its labels, type and class.
fn question_end(packet: &[u8]) -> Option<usize> {
    let mut at = HEADER_BYTES;
    loop {
        let length = usize::from(*packet.get(at)?);
        // A question that is the first name in its packet has nothing to point to.
        if length > 63 {
            return None;
        }
        at += length + 1;
        if length == 0 {
            let end = at + 4;
            return (end <= packet.len()).then_some(end);
        }
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::{RData, Record, rdata::A};

    use super::*;

    fn asking(edns: Option<u16>, transport: Transport) -> Asking {
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        let name = Name::from_ascii("Db.shop.svc.cluster.local.").expect("name");
        message.add_query(Query::query(name, RecordType::A));
        if let Some(payload) = edns {
            let mut edns = Edns::new();
            edns.set_max_payload(payload);
            message.set_edns(edns);
        }
        match parse(&message.to_vec().expect("bytes"), transport) {
            Parsed::Asking(asking) => asking,
            _ => panic!("a question"),
        }
    }

    fn many(asking: &Asking) -> Answer {
        let name = asking.query.name().clone();
        let record = |n: u8| {
            Record::from_rdata(name.clone(), 5, RData::A(A(std::net::Ipv4Addr::new(10, 0, 0, n))))
        };
        Answer { answers: (0..200).map(record).collect(), ..Answer::default() }
    }

    #[test]
    fn answers_fit_and_say_when_they_do_not() {
        for (edns, transport, limit, whole) in [
            (None, Transport::Udp, 512, false),
            (Some(4096), Transport::Udp, 1232, false),
            (Some(100), Transport::Udp, 512, false),
            (None, Transport::Tcp, 65535, true),
        ] {
            let asking = asking(edns, transport);
            let bytes = asking.reply(many(&asking));
            assert!(bytes.len() <= limit, "{} of {limit}", bytes.len());
            let message = Message::from_vec(&bytes).expect("message");
            assert_eq!(message.metadata.truncation, !whole);
            assert_eq!(message.answers.len() == 200, whole);
            assert_eq!(message.metadata.id, 7);
            assert_eq!(message.queries[0].name().to_ascii(), "Db.shop.svc.cluster.local.");
        }
    }

    #[test]
    fn what_is_no_question_gets_an_error_or_nothing() {
        let mut packet = asking(None, Transport::Udp).packet();
        let code = |packet: &[u8]| match parse(packet, Transport::Udp) {
            Parsed::Reply(bytes) => {
                Some(Message::from_vec(&bytes).expect("message").metadata.response_code)
            }
            Parsed::Nothing => None,
            Parsed::Asking(_) => panic!("no question"),
        };
        assert_eq!(code(&packet[..5]), None);
        assert_eq!(code(&packet[..20]), Some(ResponseCode::FormErr));
        packet[2] |= 0x28;
        assert_eq!(code(&packet), Some(ResponseCode::NotImp));
        packet[2] = 0x80;
        assert_eq!(code(&packet), None, "an answer");
        packet[2] = 0;
        packet[4] = 0xff;
        assert_eq!(code(&packet), Some(ResponseCode::FormErr));
    }

    #[test]
    fn whatever_comes_is_a_question_or_answered_or_neither() {
        let mut seeds = vec![asking(None, Transport::Udp).packet()];
        seeds.push(asking(Some(1232), Transport::Udp).packet());
        seeds.push(asking(None, Transport::Tcp).reply(many(&asking(None, Transport::Tcp))));
        fuzz::campaign("packets", 5000, |rng| {
            let packet = fuzz::mutate::bytes(rng, &seeds);
            for transport in [Transport::Udp, Transport::Tcp] {
                match parse(&packet, transport) {
                    Parsed::Asking(asking) => {
                        let message = Message::from_vec(&asking.reply(many(&asking)));
                        assert_eq!(message.expect("an answer").metadata.id, asking.id);
                        let own = asking.packet();
                        assert!(matches!(parse(&own, transport), Parsed::Asking(_)));
                        Message::from_vec(&asking.failure(ResponseCode::ServFail))
                            .expect("an answer");
                    }
                    Parsed::Reply(bytes) => drop(Message::from_vec(&bytes).expect("an answer")),
                    Parsed::Nothing => {}
                }
            }
            let _ = (
                answers(&packet, &seeds[2], 7),
                answers(&seeds[0], &packet, 7),
                truncated(&packet),
            );
            if let Ok(message) = Message::from_vec(&packet) {
                Message::from_vec(&asking(None, Transport::Udp).repeat(&message))
                    .expect("an answer");
            }
        });
    }

    #[test]
    fn only_the_right_answer_is_taken() {
        let asking = asking(None, Transport::Udp);
        let request = asking.packet();
        let mut response = asking.failure(ResponseCode::NoError);
        assert!(answers(&request, &response, 7));
        assert!(!answers(&request, &response, 8));
        assert!(!answers(&request, &request, 7));
        response[13] ^= 0x20;
        assert!(answers(&request, &response, 7), "letter case may differ");
        response[13] = b'x';
        assert!(!answers(&request, &response, 7));
        assert!(!answers(&request, &response[..20], 7));
    }
}
