//! Labs in the kernel: needs root, as all tests of the kernel's state.

use std::{
    fs, io,
    net::{IpAddr, SocketAddr, UdpSocket},
    path::Path,
    time::{Duration, Instant},
};

use super::*;

const PORT: u16 = 7;
/// What arrives at all arrives sooner; what is lost takes so long to be noticed.
const PATIENCE: Duration = Duration::from_millis(300);

struct Scene {
    lab: Option<Lab>,
    directory: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("lab-").tempdir_in("/run").expect("root");
        Self { lab: Some(Lab::open(directory.path().join("lab")).expect("a lab")), directory }
    }

    fn lab(&self) -> &Lab {
        self.lab.as_ref().expect("not removed")
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if let Some(lab) = self.lab.take() {
            lab.remove().expect("a lab is removed");
        }
    }
}

fn interface(name: &str, addresses: &[&str], gateways: &[&str]) -> Interface {
    Interface {
        name: name.to_owned(),
        addresses: addresses.iter().map(|text| text.parse().expect("an address")).collect(),
        gateways: gateways.iter().map(|text| text.parse().expect("an address")).collect(),
        mtu: 1500,
    }
}

/// A machine whose port says where a datagram came from.
fn echo(machine: &Machine, address: &str) {
    let address: IpAddr = address.parse().expect("an address");
    let socket =
        machine.namespace().run(|| UdpSocket::bind((address, PORT)).expect("bind")).expect("enter");
    std::thread::spawn(move || {
        let mut buffer = [0; 16];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            if &buffer[..length] == b"end" {
                break;
            }
            let _ = socket.send_to(from.ip().to_string().as_bytes(), from);
        }
    });
}

/// The asking machine's address as the other sees it.
fn ask(machine: &Machine, to: &str) -> io::Result<String> {
    let to = SocketAddr::new(to.parse().expect("an address"), PORT);
    machine
        .namespace()
        .run(|| {
            let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = UdpSocket::bind(any)?;
            socket.set_read_timeout(Some(PATIENCE))?;
            socket.send_to(b"?", to)?;
            let mut buffer = [0; 64];
            let (length, _) = socket.recv_from(&mut buffer)?;
            Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
        })
        .expect("enter")
}

/// Whether any of several attempts is answered: the first packets also find the neighbour.
fn reaches(machine: &Machine, to: &str) -> bool {
    (0..5).any(|_| ask(machine, to).is_ok())
}

/// Asks until there is an answer: on a busy machine any one may come too late.
fn answer(machine: &Machine, to: &str) -> String {
    let answers = (0..200).find_map(|_| ask(machine, to).ok());
    answers.unwrap_or_else(|| panic!("{to} does not answer"))
}

#[test]
fn machines_reach_each_other_until_a_link_is_cut() {
    let scene = Scene::new();
    let lan = scene.lab().segment("lan").expect("a segment");
    let [a, b, c] = [("a", 2), ("b", 3), ("c", 4)].map(|(name, number)| {
        let machine = scene.lab().machine(name).expect("a machine");
        let (v4, v6) = (format!("10.77.0.{number}"), format!("fd77::{number}"));
        let interface = interface("eth0", &[&format!("{v4}/24"), &format!("{v6}/64")], &[]);
        lan.attach(name, machine.namespace(), &interface).expect("attach");
        lan.attach(name, machine.namespace(), &interface).expect("attach again");
        echo(&machine, &v4);
        echo(&machine, &v6);
        machine
    });
    assert_eq!(answer(&a, "10.77.0.3"), "10.77.0.2");
    for (from, to) in [(&a, "fd77::3"), (&b, "fd77::2")] {
        answer(from, to);
    }

    lan.set_fault("a", "b", Fault::Cut).expect("cut");
    for (from, to) in [(&a, "10.77.0.3"), (&b, "10.77.0.2"), (&a, "fd77::3")] {
        assert!(!reaches(from, to), "{to} is reached in spite of the cut");
    }
    for (from, to) in [(&a, "10.77.0.4"), (&c, "10.77.0.3"), (&c, "fd77::2")] {
        answer(from, to);
    }
    lan.set_fault("a", "b", Fault::Lossy(50)).expect("lossy");
    let mut outcomes = std::iter::repeat_with(|| ask(&a, "10.77.0.3").is_ok()).take(200);
    assert!(outcomes.any(|answered| answered), "nothing is answered at 50 % loss");
    assert!(outcomes.any(|answered| !answered), "nothing is lost at 50 % loss");
    lan.heal().expect("heal");
    answer(&a, "10.77.0.3");

    lan.set_link("c", false).expect("unplug");
    assert!(!reaches(&a, "10.77.0.4"));
    lan.set_link("c", true).expect("plug");
    answer(&a, "10.77.0.4");
    answer(&c, "fd77::2");

    // The next process finds everything as it was.
    let again = Lab::open(scene.directory.path().join("lab")).expect("the same lab");
    assert_eq!(again.machines(), ["a", "b", "c"]);
    assert_eq!(answer(&again.machine("a").expect("a"), "10.77.0.3"), "10.77.0.2");
    again.remove_machine("c").expect("removal");
    assert!(!reaches(&a, "10.77.0.4"));
}

#[test]
fn a_router_joins_segments_and_may_hide_one() {
    let scene = Scene::new();
    let (inner, outer) = (scene.lab().segment("in").unwrap(), scene.lab().segment("out").unwrap());
    let [a, b, router] = ["a", "b", "r"].map(|name| scene.lab().machine(name).expect("a machine"));
    let join = |segment: &Segment, name: &str, machine: &Machine, interface: Interface| {
        segment.attach(name, machine.namespace(), &interface).expect("attach");
    };
    join(&inner, "a", &a, interface("eth0", &["10.77.1.2/24"], &["10.77.1.1"]));
    join(&outer, "b", &b, interface("eth0", &["10.77.2.2/24", "fd77:2::2/64"], &["10.77.2.1"]));
    join(&inner, "r", &router, interface("in", &["10.77.1.1/24"], &[]));
    join(&outer, "r", &router, interface("out", &["10.77.2.1/24"], &[]));
    echo(&b, "10.77.2.2");
    assert!(!reaches(&a, "10.77.2.2"), "no router yet");
    router.forward().expect("forward");
    assert_eq!(answer(&a, "10.77.2.2"), "10.77.1.2");
    let rule = Masquerade { table: "router", out: Some("out"), ..Masquerade::default() };
    router.namespace().masquerade(&rule).expect("masquerade");
    assert_eq!(answer(&a, "10.77.2.2"), "10.77.2.1");
    router.namespace().remove_masquerade("router").expect("removal");
    router.namespace().remove_masquerade("router").expect("nothing to remove");
    assert_eq!(answer(&a, "10.77.2.2"), "10.77.1.2");
}

#[test]
fn a_view_is_shared_but_for_what_nodes_keep() {
    let before: Vec<bool> = ["/opt/cni", "/var/lib/kubelet", "/run/netns"]
        .map(|place| Path::new(place).exists())
        .into();
    let mut scene = Scene::new();
    let places = scene.directory.path().join("places");
    let shared = scene.directory.path().join("shared");
    let machine = scene.lab().machine("a").expect("a machine");
    machine.separate(&places).expect("a view");
    machine.separate(&places).expect("the same view");
    let run = |script: &str| {
        let output = machine.command("sh").args(["-c", script]).output().expect("start sh");
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    run(&format!("mkdir {0} && echo here > {0}/file", shared.display()));
    assert_eq!(fs::read_to_string(shared.join("file")).expect("shared"), "here\n");
    run("echo mine > /var/lib/kubelet/file");
    assert!(!Path::new("/var/lib/kubelet/file").exists(), "the place is the machine's own");
    assert_eq!(fs::read_to_string(places.join("var-lib-kubelet/file")).expect("kept"), "mine\n");
    // A mount of one program is there for the next, and for nobody else.
    run(&format!("mount -t tmpfs tmpfs {0} && echo there > {0}/file", shared.display()));
    assert_eq!(run(&format!("cat {}/file", shared.display())), "there");
    assert_eq!(fs::read_to_string(shared.join("file")).expect("unchanged"), "here\n");
    assert_eq!(run("ls /sys/class/net >/dev/null; ip -o link | wc -l"), "1", "only loopback");

    let lab = scene.lab.take().expect("not removed");
    lab.remove().expect("removal");
    let after: Vec<bool> = ["/opt/cni", "/var/lib/kubelet", "/run/netns"]
        .map(|place| Path::new(place).exists())
        .into();
    assert_eq!(before, after, "places made on the host are removed, others stay");
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    let directory = scene.directory.path().to_string_lossy().into_owned();
    assert!(!mounts.contains(&directory), "a mount is left");
    let began = Instant::now();
    assert!(fs::remove_dir_all(&places).is_ok(), "{:?}", began.elapsed());
}

#[test]
fn names_that_cannot_be_devices_are_refused() {
    let scene = Scene::new();
    for name in ["", "much-too-long-name", "a/b", "..", "a b", "ä"] {
        let error = scene.lab().machine(name).expect_err("no device's name").to_string();
        assert!(error.contains("cannot name a machine"), "{error}");
        assert!(scene.lab().segment(name).is_err());
    }
}
