//! The planner against the API's own words: what the rules it plans let through is compared with
//! what a slow reading of the policies allows, over long runs of random changes.

use std::{collections::BTreeMap, net::IpAddr};

use client::ObjectKey;
use k8s_openapi::api::{core::v1::Pod, networking::v1::NetworkPolicy};
use serde_json::{Value, json};

use super::{
    content::Content,
    model,
    state::State,
    subject::{Attachment, Facts},
};

fn object<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("an object")
}

/// A packet that opens a connection.
struct Packet<'a> {
    from: IpAddr,
    to: IpAddr,
    protocol: &'a str,
    port: u16,
}

/// Follows the planned rules as the kernel does.
struct Kernel<'a>(&'a Content);

impl Kernel<'_> {
    fn allows(&self, packet: &Packet<'_>) -> bool {
        let digit = if packet.from.is_ipv4() { '4' } else { '6' };
        let own = self.has(&format!("self{digit}"), &format!("{} . {}", packet.from, packet.to));
        let way = |map: &str, address: IpAddr| {
            let map = self.0.sets.get(&format!("{map}{digit}"));
            let verdict = map.and_then(|map| map.elements.get(&address.to_string()));
            verdict.is_none_or(|verdict| {
                self.run(verdict.strip_prefix("goto ").expect("goto"), packet) == Some(true)
            })
        };
        own || way("egress", packet.from) && way("ingress", packet.to)
    }

    fn has(&self, set: &str, element: &str) -> bool {
        self.0.sets.get(set).is_some_and(|set| {
            set.elements.keys().any(|key| match key.split_once('-') {
                Some((first, last)) => {
                    let number = |text: &str| text.parse::<IpAddr>().expect("address");
                    element
                        .parse::<IpAddr>()
                        .is_ok_and(|address| number(first) <= address && address <= number(last))
                }
                None => key == element,
            })
        })
    }

    /// `None` falls through to the caller.
    fn run(&self, chain: &str, packet: &Packet<'_>) -> Option<bool> {
        if chain == "deny" {
            return Some(false);
        }
        for rule in self.0.chains.get(chain).unwrap_or_else(|| panic!("chain {chain}")) {
            let words: Vec<&str> = rule.split(' ').collect();
            if let Some(verdict) = self.rule(&words, packet) {
                return Some(verdict);
            }
        }
        None
    }

    fn rule(&self, words: &[&str], packet: &Packet<'_>) -> Option<bool> {
        let of_family = |word: &str| (word == "ip") == packet.from.is_ipv4();
        match words {
            ["accept"] => Some(true),
            ["jump" | "goto", chain] => self.run(chain, packet),
            ["meta", "l4proto", protocol, rest @ ..] => {
                if *protocol == packet.protocol {
                    self.rule(rest, packet)
                } else {
                    None
                }
            }
            ["ct", "reply", "proto-src", numbers, rest @ ..] => {
                let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
                let number = |text: &str| text.parse::<u16>().expect("number");
                let within = (number(first)..=number(last)).contains(&packet.port);
                if within { self.rule(rest, packet) } else { None }
            }
            ["ct", "reply", family, "saddr", ".", "ct", "reply", "proto-src", set, rest @ ..] => {
                let element = format!("{} . {}", packet.to, packet.port);
                let within = of_family(family) && self.has(&set[1..], &element);
                if within { self.rule(rest, packet) } else { None }
            }
            ["ct", side, family, "saddr", set, rest @ ..] => {
                let address = if *side == "original" { packet.from } else { packet.to };
                let within = of_family(family) && self.has(&set[1..], &address.to_string());
                if within { self.rule(rest, packet) } else { None }
            }
            other => panic!("what is {other:?}?"),
        }
    }
}

/// The API's meaning, read slowly from the objects.
#[derive(Default)]
struct World {
    namespaces: BTreeMap<String, Value>,
    pods: BTreeMap<ObjectKey, Value>,
    policies: BTreeMap<ObjectKey, Value>,
}

impl World {
    fn pod_at(&self, address: IpAddr) -> Option<(&ObjectKey, &Value)> {
        let at = |pod: &&Value| pod["status"]["podIP"] == address.to_string();
        self.pods.iter().find(|(_, pod)| at(pod))
    }

    fn allows(&self, packet: &Packet<'_>) -> bool {
        packet.from == packet.to
            || self.way(packet, packet.from, packet.to, "Egress", "egress", "to")
                && self.way(packet, packet.to, packet.from, "Ingress", "ingress", "from")
    }

    fn way(
        &self,
        packet: &Packet<'_>,
        of: IpAddr,
        peer: IpAddr,
        kind: &str,
        rules: &str,
        peers: &str,
    ) -> bool {
        let Some((key, pod)) = self.pod_at(of) else { return true };
        if pod["spec"]["nodeName"] != "here" {
            return true;
        }
        let mut isolated = false;
        for (name, policy) in &self.policies {
            let spec = &policy["spec"];
            let typed = match spec["policyTypes"].as_array() {
                Some(types) if !types.is_empty() => types.contains(&json!(kind)),
                _ => kind == "Ingress" || spec["egress"].as_array().is_some_and(|e| !e.is_empty()),
            };
            if name.namespace != key.namespace || !typed || !selects(&spec["podSelector"], pod) {
                continue;
            }
            isolated = true;
            let rules = spec[rules].as_array();
            if rules.into_iter().flatten().any(|rule| {
                self.peers(&rule[peers], key.namespace(), peer)
                    && self.ports(&rule["ports"], packet)
            }) {
                return true;
            }
        }
        !isolated
    }

    fn peers(&self, peers: &Value, namespace: &str, address: IpAddr) -> bool {
        let Some(peers) = peers.as_array().filter(|peers| !peers.is_empty()) else { return true };
        peers.iter().any(|peer| {
            if let Some(block) = peer.get("ipBlock") {
                let within = |cidr: &Value| {
                    let network: ipnet::IpNet = cidr.as_str().expect("CIDR").parse().expect("CIDR");
                    network.contains(&address)
                };
                let holes = block["except"].as_array();
                return within(&block["cidr"]) && !holes.into_iter().flatten().any(within);
            }
            let Some((key, pod)) = self.pod_at(address) else { return false };
            let there = match peer.get("namespaceSelector") {
                Some(selector) => {
                    self.namespaces.get(key.namespace()).is_some_and(|one| selects(selector, one))
                }
                None => key.namespace() == namespace,
            };
            there && peer.get("podSelector").is_none_or(|selector| selects(selector, pod))
        })
    }

    fn ports(&self, ports: &Value, packet: &Packet<'_>) -> bool {
        let Some(ports) = ports.as_array().filter(|ports| !ports.is_empty()) else { return true };
        ports.iter().any(|port| {
            let protocol = port["protocol"].as_str().unwrap_or("TCP");
            let number = match &port["port"] {
                Value::Null => true,
                Value::String(name) => self.pod_at(packet.to).is_some_and(|(_, pod)| {
                    let ports = pod["spec"]["containers"][0]["ports"].as_array();
                    ports.into_iter().flatten().any(|one| {
                        one["name"] == name.as_str()
                            && one["containerPort"] == packet.port
                            && one["protocol"] == protocol
                    })
                }),
                first => {
                    let first = first.as_u64().expect("number");
                    let last = port["endPort"].as_u64().unwrap_or(first);
                    (first..=last).contains(&packet.port.into())
                }
            };
            number && protocol.eq_ignore_ascii_case(packet.protocol)
        })
    }
}

/// `matchLabels`, and expressions with `In` and `DoesNotExist`.
fn selects(selector: &Value, object: &Value) -> bool {
    let labels = &object["metadata"]["labels"];
    let equal = selector["matchLabels"].as_object();
    let expressions = selector["matchExpressions"].as_array();
    equal.into_iter().flatten().all(|(key, value)| &labels[key] == value)
        && expressions.into_iter().flatten().all(|one| {
            let value = &labels[one["key"].as_str().expect("key")];
            match one["operator"].as_str() {
                Some("In") => one["values"].as_array().expect("values").contains(value),
                _ => value.is_null(),
            }
        })
}

/// Numbers that look random, the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.roll(of.len() as u64) as usize]
    }

    fn selector(&mut self) -> Value {
        match self.roll(4) {
            0 => json!({}),
            1 => json!({"matchExpressions": [
                {"key": "tier", "operator": "In", "values": ["a", *self.one(&["b", "c"])]}]}),
            2 => json!({"matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]}),
            _ => json!({"matchLabels": {"tier": *self.one(&["a", "b"])}}),
        }
    }

    fn labels(&mut self) -> Value {
        match self.roll(4) {
            0 => json!({}),
            _ => json!({"tier": *self.one(&["a", "b", "c"])}),
        }
    }

    fn peer(&mut self) -> Value {
        match self.roll(5) {
            0 => json!({"podSelector": self.selector()}),
            1 => json!({"namespaceSelector": self.selector()}),
            2 => json!({"namespaceSelector": self.selector(), "podSelector": self.selector()}),
            3 => {
                json!({"ipBlock": {"cidr": "10.0.0.0/28", "except": ["10.0.0.4/30", "10.0.0.9/32"]}})
            }
            _ => json!({"ipBlock": {"cidr": *self.one(&["10.0.0.2/32", "fd00::/125"])}}),
        }
    }

    fn port(&mut self) -> Value {
        let protocol = *self.one(&["TCP", "UDP"]);
        match self.roll(4) {
            0 => json!({"protocol": protocol}),
            1 => json!({"protocol": protocol, "port": *self.one(&[80, 81])}),
            2 => json!({"protocol": protocol, "port": 79, "endPort": *self.one(&[80, 81])}),
            _ => json!({"protocol": protocol, "port": *self.one(&["web", "alt"])}),
        }
    }

    fn rules(&mut self, peers: &str) -> Value {
        let rule = |dice: &mut Self| {
            let mut rule = json!({});
            if dice.roll(4) > 0 {
                rule[peers] = (0..dice.roll(3)).map(|_| dice.peer()).collect();
            }
            if dice.roll(2) > 0 {
                rule["ports"] = (0..dice.roll(3)).map(|_| dice.port()).collect();
            }
            rule
        };
        (0..self.roll(3)).map(|_| rule(self)).collect()
    }
}

/// One random change, taken in by both.
fn change(dice: &mut Dice, world: &mut World, state: &mut State) {
    let namespace = *dice.one(&["x", "y", "z"]);
    let number = dice.roll(4);
    let key = ObjectKey::namespaced(namespace, format!("n{number}"));
    let gone = dice.roll(5) == 0;
    match dice.roll(4) {
        0 if gone => {
            world.policies.remove(&key);
            state.policy(&key, None);
        }
        0 => {
            let types =
                [json!(null), json!(["Ingress"]), json!(["Egress"]), json!(["Ingress", "Egress"])];
            let policy = json!({
                "metadata": {"namespace": namespace, "name": key.name},
                "spec": {
                    "podSelector": dice.selector(), "policyTypes": *dice.one(&types),
                    "ingress": dice.rules("from"), "egress": dice.rules("to"),
                },
            });
            state.policy(&key, Some(model::read(&object::<NetworkPolicy>(policy.clone()))));
            world.policies.insert(key, policy);
        }
        1 if gone => {
            world.namespaces.remove(namespace);
            state.namespace(namespace, None);
        }
        1 => {
            let labels = dice.labels();
            state.namespace(namespace, Some(object(labels.clone())));
            world.namespaces.insert(namespace.to_owned(), json!({"metadata": {"labels": labels}}));
        }
        _ if gone => {
            world.pods.remove(&key);
            state.pod(&key, None);
        }
        _ => {
            let index = 4 * ["x", "y", "z"].iter().position(|one| *one == namespace).expect("one")
                as u64
                + number;
            let address =
                if number == 3 { format!("fd00::{index:x}") } else { format!("10.0.0.{index}") };
            let pod = json!({
                "metadata": {"namespace": namespace, "name": key.name, "uid": key.name, "labels": dice.labels()},
                "spec": {
                    "nodeName": *dice.one(&["here", "here", "there"]),
                    "containers": [{"name": "c", "ports": [
                        {"name": "web", "containerPort": *dice.one(&[80, 81]), "protocol": "TCP"},
                        {"name": "alt", "containerPort": 80, "protocol": *dice.one(&["TCP", "UDP"])},
                    ]}],
                },
                "status": {"podIP": address, "podIPs": [{"ip": address}]},
            });
            state.pod(&key, Facts::read(&object::<Pod>(pod.clone())));
            world.pods.insert(key, pod);
        }
    }
}

#[test]
fn what_is_planned_is_what_is_meant() {
    for seed in 0..12 {
        let (mut dice, mut world, mut state) = (Dice(seed), World::default(), State::new("here"));
        for step in 0..60 {
            change(&mut dice, &mut world, &mut state);
            if step % 6 > 0 {
                continue;
            }
            let mut addresses: Vec<IpAddr> = (0..13).map(|n| IpAddr::from([10, 0, 0, n])).collect();
            addresses.extend([3, 7, 11].map(|n| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, n])));
            let kernel = Kernel(&state.content);
            for from in &addresses {
                for to in addresses.iter().filter(|to| to.is_ipv4() == from.is_ipv4()) {
                    for (protocol, port) in [("tcp", 80), ("tcp", 81), ("udp", 80), ("sctp", 80)] {
                        let packet = Packet { from: *from, to: *to, protocol, port };
                        assert_eq!(
                            kernel.allows(&packet),
                            world.allows(&packet),
                            "seed {seed} step {step}: {from} to {to} {protocol} {port}\n{:#?}\n{:#?}",
                            world.policies,
                            state.content.chains
                        );
                    }
                }
            }
        }
        // Without policies nothing is left.
        for key in world.policies.keys() {
            state.policy(key, None);
        }
        state.sweep();
        assert!(state.content.chains.is_empty(), "{:?}", state.content.chains);
        let left: Vec<_> =
            state.content.sets.iter().filter(|(_, set)| !set.elements.is_empty()).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

/// The transaction for what has changed.
fn taken(state: &mut State) -> String {
    state.sweep();
    state.content.take_change().script("t")
}

/// A cluster of one policy and one pod here.
fn small() -> State {
    let mut state = State::new("here");
    state.namespace("x", Some(BTreeMap::new()));
    let policy: NetworkPolicy = object(json!({
        "metadata": {"namespace": "x", "name": "p"},
        "spec": {"podSelector": {}, "ingress": [{"from": [{"podSelector": {"matchLabels": {"a": "b"}}}]}]},
    }));
    state.policy(&ObjectKey::namespaced("x", "p"), Some(model::read(&policy)));
    pod(&mut state, "one", "1", "here", Some("10.0.0.1"));
    taken(&mut state);
    state
}

fn pod(state: &mut State, name: &str, uid: &str, node: &str, address: Option<&str>) {
    let pod: Pod = object(json!({
        "metadata": {"namespace": "x", "name": name, "uid": uid, "labels": {"a": "b"}},
        "spec": {"nodeName": node, "containers": []}, "status": {"podIP": address},
    }));
    state.pod(&ObjectKey::namespaced("x", name), Facts::read(&pod));
}

fn attachment(name: &str, uid: &str, address: &str) -> Attachment {
    Attachment {
        namespace: "x".to_owned(),
        name: name.to_owned(),
        uid: uid.to_owned(),
        device: format!("sk{name}{uid}"),
        addresses: vec![address.parse().expect("address")],
    }
}

#[test]
fn a_pod_that_comes_is_elements_alone() {
    let mut state = small();
    pod(&mut state, "far", "9", "there", Some("10.0.9.1"));
    assert_eq!(taken(&mut state), "add element t pods/2/4 { 10.0.9.1 }\n");
    // What the network gives counts before the API says it.
    pod(&mut state, "two", "2", "here", None);
    state.attach(attachment("two", "2", "10.0.0.2"));
    assert!(state.knows(&attachment("two", "2", "10.0.0.2")));
    assert_eq!(
        taken(&mut state),
        "add element t ingress4 { 10.0.0.2 : goto ingress/3 }\nadd element t pods/2/4 { 10.0.0.2 }\n\
         add element t policed4 { 10.0.0.2 }\nadd element t self4 { 10.0.0.2 . 10.0.0.2 }\n"
    );
    assert_eq!(
        state.guard.take_change().script("g"),
        "add element g bound4 { \"sktwo2\" . 10.0.0.2 }\n"
    );
    pod(&mut state, "two", "2", "here", Some("10.0.0.2"));
    assert_eq!(taken(&mut state), "");
}

#[test]
fn what_still_runs_is_policed_until_its_address_is_free() {
    let mut state = small();
    state.attach(attachment("one", "1", "10.0.0.1"));
    taken(&mut state);
    // Deleted by force, and replaced under its name.
    pod(&mut state, "one", "7", "here", None);
    assert_eq!(taken(&mut state), "delete element t pods/2/4 { 10.0.0.1 }\n");
    assert!(!state.knows(&attachment("one", "1", "10.0.0.1")));
    state.attach(attachment("one", "7", "10.0.0.3"));
    assert!(taken(&mut state).contains("add element t ingress4 { 10.0.0.3 : goto"));
    state.detach("10.0.0.1".parse().expect("address"));
    assert_eq!(
        taken(&mut state),
        "delete element t ingress4 { 10.0.0.1 : goto ingress/3 }\n\
         delete element t policed4 { 10.0.0.1 }\ndelete element t self4 { 10.0.0.1 . 10.0.0.1 }\n"
    );
}

#[test]
fn an_address_that_passes_on_takes_no_policy_with_it() {
    let mut state = small();
    state.attach(attachment("one", "1", "10.0.0.1"));
    // The next pod is in no namespace of ours, and its plugin was quicker than any DEL.
    let mut next = attachment("two", "2", "10.0.0.1");
    next.namespace = "elsewhere".to_owned();
    state.attach(next.clone());
    assert!(!state.knows(&next), "not before the API has shown it");
    let text = taken(&mut state);
    assert!(text.contains("delete element t ingress4 { 10.0.0.1 : goto ingress/3 }"), "{text}");
    assert!(!text.contains("add element t ingress4"), "{text}");
    assert!(state.guard.take_change().script("g").contains("\"sktwo2\" . 10.0.0.1"));
}

#[test]
fn unreadable_peers_allow_nobody() {
    let policy = |peer: Value| {
        let policy = json!({
            "metadata": {"namespace": "x", "name": "p"},
            "spec": {"podSelector": {}, "ingress": [{"from": [peer]}]},
        });
        let read = model::read(&object::<NetworkPolicy>(policy));
        let rule = read.rules[&model::Direction::Ingress][0].clone();
        rule.peers.expect("somebody")
    };
    assert_eq!(policy(json!({"ipBlock": {"cidr": "10.0.0.0/99"}})), model::Peers::default());
    let hole = json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["nonsense"]}});
    assert_eq!(policy(hole), model::Peers::default());
    assert_eq!(policy(json!({})), model::Peers::default());
}
