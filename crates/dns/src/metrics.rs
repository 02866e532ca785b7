//! The server's metrics, named as dashboards for Kubernetes' cluster DNS expect them.

use std::time::Duration;

use hickory_proto::op::ResponseCode;
use prometheus_client::{
    metrics::{
        counter::Counter,
        family::Family,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

use crate::wire::Transport;

type Label = [(&'static str, &'static str); 1];

/// Counts questions and what became of them. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    udp: Counter,
    tcp: Counter,
    requests: Family<Label, Counter>,
    responses: Family<Label, Counter>,
    /// The response that nearly all are, at hand.
    fine: Counter,
    pub(crate) remembered: Counter,
    pub(crate) forwarded: Counter,
    pub(crate) searched: Counter,
    took: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        let requests = Family::<Label, Counter>::default();
        let of = |proto| requests.get_or_create_owned(&[("proto", proto)]);
        let (udp, tcp) = (of("udp"), of("tcp"));
        let responses = Family::<Label, Counter>::default();
        let fine = responses.get_or_create_owned(&[("rcode", "NOERROR")]);
        Self {
            udp,
            tcp,
            requests,
            responses,
            fine,
            remembered: Counter::default(),
            forwarded: Counter::default(),
            searched: Counter::default(),
            took: Histogram::new(exponential_buckets(0.000_25, 2.0, 16)),
        }
    }
}

impl Metrics {
    /// Makes the metrics part of what `registry` exposes.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("coredns_dns_requests", "Questions received", self.requests.clone());
        registry.register("coredns_dns_responses", "Answers given", self.responses.clone());
        let what = "Questions answered from memory of what others answered";
        registry.register("coredns_cache_hits", what, self.remembered.clone());
        let what = "Questions passed on to resolvers outside";
        registry.register("coredns_forward_requests", what, self.forwarded.clone());
        let what = "Questions answered with what the asker's search path would have led to";
        registry.register("coredns_autopath_success", what, self.searched.clone());
        let what = "Seconds from a question that others had to answer to its answer";
        registry.register("coredns_forward_request_duration_seconds", what, self.took.clone());
    }

    pub(crate) fn asked(&self, transport: Transport) {
        match transport {
            Transport::Udp => self.udp.inc(),
            Transport::Tcp => self.tcp.inc(),
        };
    }

    pub(crate) fn answered(&self, reply: &[u8]) {
        let code = reply.get(3).map_or(0, |flags| flags & 0xf);
        let code = ResponseCode::from(0, code);
        let name = match code {
            ResponseCode::NoError => {
                self.fine.inc();
                return;
            }
            ResponseCode::FormErr => "FORMERR",
            ResponseCode::ServFail => "SERVFAIL",
            ResponseCode::NXDomain => "NXDOMAIN",
            ResponseCode::NotImp => "NOTIMP",
            ResponseCode::Refused => "REFUSED",
            _ => "other",
        };
        self.responses.get_or_create(&[("rcode", name)]).inc();
    }

    pub(crate) fn took(&self, time: Duration) {
        self.took.observe(time.as_secs_f64());
    }
}
