//! Order, back-off, parking and waking.

use super::*;
use crate::plugins::{ALL, Order as Sort};
use crate::pod::Wants;

fn pod(name: &str, priority: i32) -> Arc<PodInfo> {
    Arc::new(PodInfo {
        key: PodKey::new("default", name),
        uid: name.into(),
        generation: None,
        node: None,
        finished: false,
        deleting: false,
        scheduler: "default-scheduler".into(),
        unscheduled: None,
        wants: Wants { priority, ..Wants::default() },
    })
}

fn queue() -> Queue<Sort> {
    Queue::new(&ALL, &SchedulerOptions::default())
}

fn pop(queue: &mut Queue<Sort>) -> String {
    queue.pop().map(|attempt| attempt.pod.key.name().to_owned()).unwrap_or_default()
}

fn against(name: &str) -> PluginSet {
    let mut set = PluginSet::default();
    set.insert(ALL.iter().position(|plugin| plugin.name == name).unwrap());
    set
}

fn after(start: Instant, millis: u64) -> Instant {
    start + Duration::from_millis(millis)
}

#[test]
fn priority_then_waiting_time() {
    let (mut queue, start) = (queue(), Instant::now());
    queue.set(pod("late", 0), None, after(start, 2));
    queue.set(pod("early", 0), None, after(start, 1));
    queue.set(pod("high", 10), None, after(start, 3));
    queue.set(pod("gone", 99), None, start);
    queue.remove(&PodKey::new("default", "gone"));
    assert_eq!([pop(&mut queue), pop(&mut queue), pop(&mut queue)], ["high", "early", "late"]);
    assert_eq!(pop(&mut queue), "");
}

#[test]
fn backoff_doubles_up_to_its_limit() {
    let (mut queue, start) = (queue(), Instant::now());
    queue.set(pod("a", 0), None, start);
    let mut now = start;
    for seconds in [1, 2, 4, 8, 10, 10] {
        let attempt = queue.pop().unwrap();
        queue.retry(attempt, now);
        assert_eq!(queue.next_deadline(), Some(now + Duration::from_secs(seconds)));
        queue.advance(now + Duration::from_secs(seconds) - Duration::from_millis(1));
        assert!(!queue.has_active());
        now += Duration::from_secs(seconds);
        queue.advance(now);
    }
    assert_eq!(pop(&mut queue), "a");
}

#[test]
fn parked_pods_wake_for_what_helps_them() {
    let (mut queue, start) = (queue(), Instant::now());
    for (name, plugin) in [("full", "NodeResourcesFit"), ("tainted", "TaintToleration")] {
        queue.set(pod(name, 0), None, start);
        let attempt = queue.pop().unwrap();
        queue.park(attempt, against(plugin), start);
    }
    let freed = pod("other", 0);
    queue.wake(&Event::PodFreed(&freed), after(start, 5000));
    assert_eq!(pop(&mut queue), "full");
    assert_eq!(queue.lengths(), Lengths { parked: 1, ..Lengths::default() });
    // Within its back-off a woken pod waits for the end of that.
    let attempt = Attempt { pod: pod("full", 0), number: 2, reported: None };
    queue.park(attempt, against("NodeResourcesFit"), after(start, 5000));
    queue.wake(&Event::PodFreed(&freed), after(start, 5500));
    assert_eq!(queue.lengths(), Lengths { parked: 1, backoff: 1, ..Lengths::default() });
    queue.advance(after(start, 7000));
    assert_eq!(pop(&mut queue), "full");
}

#[test]
fn parked_pods_are_tried_again_after_five_minutes() {
    let (mut queue, start) = (queue(), Instant::now());
    queue.set(pod("a", 0), None, start);
    let attempt = queue.pop().unwrap();
    queue.park(attempt, against("NodeAffinity"), start);
    queue.advance(after(start, 299_999));
    assert!(!queue.has_active());
    assert_eq!(queue.next_deadline(), Some(after(start, 300_000)));
    queue.advance(after(start, 300_000));
    assert_eq!(pop(&mut queue), "a");
}

#[test]
fn changes_of_the_pod_itself() {
    let (mut queue, start) = (queue(), Instant::now());
    queue.set(pod("a", 0), Some(against("SchedulingGates")), start);
    assert_eq!(queue.lengths().held, 1);
    queue.set(pod("a", 0), None, after(start, 10));
    assert_eq!(queue.lengths().active, 1);
    let attempt = queue.pop().unwrap();
    queue.park(attempt, against("TaintToleration"), after(start, 10));
    // Its status changed: no reason to try again.
    queue.set(pod("a", 0), None, after(start, 9000));
    assert_eq!(queue.lengths().parked, 1);
    queue.set(pod("a", 1), None, after(start, 9000));
    assert_eq!(queue.lengths().active, 1);
    // A gate put on an active pod holds it.
    queue.set(pod("a", 1), Some(against("SchedulingGates")), after(start, 9001));
    assert_eq!(queue.lengths(), Lengths { held: 1, ..Lengths::default() });
}

#[test]
fn without_a_plugin_against_it_anything_wakes() {
    let (mut queue, start) = (queue(), Instant::now());
    queue.set(pod("a", 0), None, start);
    let attempt = queue.pop().unwrap();
    queue.park(attempt, PluginSet::default(), start);
    queue.wake(&Event::PodFreed(&pod("b", 0)), after(start, 2000));
    assert!(queue.has_active());
}
