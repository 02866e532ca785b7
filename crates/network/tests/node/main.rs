//! A node's network on a real kernel: this process in a network namespace of its own, pods in
//! others, the plugin run as the container runtime runs it, the proxy fed by a small API server.
//!
//! Needs root, `nft` and `ip`; without root it says so and passes. Everything vanishes with the
//! process.

mod api;
mod attach;
mod balancer;
mod enforcement;
mod machines;
mod nodes;
mod policies;
mod sctp;
mod services;
mod world;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
};

type Test = (&'static str, fn(&world::Node));

const TESTS: &[Test] = &[
    ("attach::add_check_del", attach::add_check_del),
    ("attach::errors_are_reported", attach::errors_are_reported),
    ("attach::pods_talk_through_the_node", attach::pods_talk_through_the_node),
    ("attach::many_at_once", attach::many_at_once),
    ("attach::host_ports", attach::host_ports),
    ("attach::bandwidth", attach::bandwidth),
    ("attach::lost_namespaces", attach::lost_namespaces),
    ("services::ways_in", services::ways_in),
    ("services::ways_in_unfiltered", services::ways_in_unfiltered),
    ("services::endpoints_on_the_node", services::endpoints_on_the_node),
    ("services::affinity", services::affinity),
    ("services::affinity_ends", services::affinity_ends),
    ("sctp::associations_are_led", sctp::associations_are_led),
    ("services::nobody_serves", services::nobody_serves),
    ("services::datagrams_follow_endpoints", services::datagrams_follow_endpoints),
    ("services::connections_end_with_their_pods", services::connections_end_with_their_pods),
    ("services::rollout_under_load", services::rollout_under_load),
    ("services::table_is_restored", services::table_is_restored),
    ("services::many_services", services::many_services),
    ("balancer::ways_in_from_outside", balancer::ways_in_from_outside),
    ("balancer::local_policy", balancer::local_policy),
    ("balancer::hints", balancer::hints),
    ("balancer::failover", balancer::failover),
    ("nodes::vxlan", nodes::vxlan),
    ("nodes::vxlan_over_ipv6", nodes::vxlan_over_ipv6),
    ("nodes::host_gateway", nodes::host_gateway),
    ("nodes::host_ports_of_both_families", nodes::host_ports_of_both_families),
    ("nodes::what_others_remove_is_repaired", nodes::what_others_remove_is_repaired),
    ("nodes::nodes_come_and_go", nodes::nodes_come_and_go),
    ("nodes::a_start_without_a_server", nodes::a_start_without_a_server),
    ("nodes::packet_sizes_follow", nodes::packet_sizes_follow),
    ("nodes::nothing_is_left", nodes::nothing_is_left),
    ("policies::truth_table", policies::truth_table),
    ("enforcement::connections_are_cut", enforcement::connections_are_cut),
    ("enforcement::never_unpoliced", enforcement::never_unpoliced),
    ("enforcement::the_node_passes", enforcement::the_node_passes),
    ("enforcement::no_way_around", enforcement::no_way_around),
    ("attach::cleanup_leaves_nothing", attach::cleanup_leaves_nothing),
];

fn main() -> ExitCode {
    if std::env::var_os("CNI_COMMAND").is_some() {
        return skiff_network::cni::main();
    }
    let mut arguments = std::env::args().skip(1);
    let wanted = arguments.find(|argument| !argument.starts_with('-'));
    if std::env::args().any(|argument| argument == "--list") {
        for (name, _) in TESTS {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: network namespaces need root");
        return ExitCode::SUCCESS;
    }
    let node = world::Node::new();
    let mut failed = Vec::new();
    for (name, test) in TESTS {
        if wanted.as_ref().is_some_and(|wanted| !name.contains(wanted.as_str())) {
            continue;
        }
        let began = std::time::Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| test(&node)));
        let word = if outcome.is_ok() { "ok" } else { "FAILED" };
        println!("test {name} ... {word} ({:.2?})", began.elapsed());
        if outcome.is_err() {
            failed.push(name);
        }
    }
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
