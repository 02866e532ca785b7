//! Machines of a test: each a machine of its own to programs, joined to the others by one segment.
//!
//! `outside` is one of them: the others' way out, which leads nowhere else, and the place from which a
//! stranger to the cluster asks. Machine n has 10.77.0.(n+1) and fd77::(n+1); `outside` is number 0.

use std::ffi::OsStr;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::Context;
use network::lab::{self, Fault, Interface, Lab, LabError, Segment};
use tempfile::TempDir;

/// The machine that is no part of the cluster.
pub const OUTSIDE: &str = "outside";
const DEVICE: &str = "eth0";
/// Addresses of `outside` that are no private network's: the internet, as far as a test needs one.
pub const INTERNET: [&str; 2] = ["203.0.113.1", "2001:db8::1"];

/// The families of which machines have addresses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Families {
    /// IPv4.
    #[default]
    V4,
    /// IPv4 and IPv6.
    Both,
    /// IPv6.
    V6,
}

/// Machines and the segment between them; removed when the last of them is dropped.
pub struct Site {
    lab: Option<Lab>,
    segment: Segment,
    families: Families,
    _directory: TempDir,
}

impl Site {
    /// A segment with `outside` on it.
    ///
    /// # Errors
    /// When not root, or the kernel lacks something.
    pub fn create(families: Families) -> anyhow::Result<Arc<Self>> {
        let directory = tempfile::Builder::new()
            .prefix("skiff-lab-")
            .tempdir_in("/run")
            .context("make a directory in /run: are you root?")?;
        let lab = Lab::open(directory.path().join("lab"))?;
        let segment = lab.segment("lan")?;
        let site = Arc::new(Self { lab: Some(lab), segment, families, _directory: directory });
        // It answers for the rest of the world that there is no way, instead of saying nothing.
        site.machine(OUTSIDE, 0)?.inner.forward()?;
        Ok(site)
    }

    /// The machine called `name`, number `number`; made where it is missing.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn machine(self: &Arc<Self>, name: &str, number: u8) -> anyhow::Result<Machine> {
        let lab = self.lab.as_ref().context("the lab has been removed")?;
        let inner = lab.machine(name)?;
        let machine = Machine { site: self.clone(), inner, name: name.to_owned(), number };
        let mut addresses = Vec::new();
        let mut gateways = Vec::new();
        let own = [(machine.v4(), "24", "32"), (machine.v6(), "64", "128")];
        let ways = [v4(0), v6(0)];
        for (index, (address, prefix, whole)) in own.into_iter().enumerate() {
            let Some(address) = address else { continue };
            addresses.push(format!("{address}/{prefix}"));
            match number {
                0 => addresses.push(format!("{}/{whole}", INTERNET[index])),
                _ => gateways.push(ways[index]),
            }
        }
        let mut interface = Interface::new(DEVICE, addresses[0].parse()?);
        for address in &addresses[1..] {
            interface = interface.address(address.parse()?);
        }
        interface.gateways = gateways;
        self.segment.attach(name, machine.inner.namespace(), &interface)?;
        Ok(machine)
    }

    /// Removes a machine as if it had been switched off. What runs on it must have been stopped.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn remove(&self, name: &str) -> anyhow::Result<()> {
        Ok(self.lab.as_ref().context("the lab has been removed")?.remove_machine(name)?)
    }

    /// Puts the same fault on both directions between two machines.
    ///
    /// # Panics
    /// When `nft` refuses.
    pub fn fault(&self, a: &str, b: &str, fault: Fault) {
        self.fault_one_way(a, b, fault);
        self.fault_one_way(b, a, fault);
    }

    /// Puts a fault on what goes from one machine to another; the other direction stays as it is.
    ///
    /// # Panics
    /// When `nft` refuses.
    pub fn fault_one_way(&self, from: &str, to: &str, fault: Fault) {
        self.expect(self.segment.set_fault(from, to, fault));
    }

    /// Ends the faults between two machines.
    ///
    /// # Panics
    /// When `nft` refuses.
    pub fn heal_between(&self, a: &str, b: &str) {
        self.expect(self.segment.clear_fault(a, b));
        self.expect(self.segment.clear_fault(b, a));
    }

    /// Ends all faults.
    ///
    /// # Panics
    /// When `nft` refuses.
    pub fn heal(&self) {
        self.expect(self.segment.heal());
    }

    /// Pulls a machine's network cable out, or puts it back.
    ///
    /// # Panics
    /// When there is no such machine.
    pub fn set_link(&self, machine: &str, up: bool) {
        self.expect(self.segment.set_link(machine, up));
    }

    fn expect(&self, outcome: Result<(), LabError>) {
        outcome.expect("root may change links of the lab");
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.lab.take().map(Lab::remove) {
            eprintln!("remove the machines of a test: {:#}", anyhow::Error::from(error));
        }
    }
}

fn v4(number: u8) -> IpAddr {
    IpAddr::from([10, 77, 0, number + 1])
}

fn v6(number: u8) -> IpAddr {
    IpAddr::from([0xfd77, 0, 0, 0, 0, 0, 0, u16::from(number) + 1])
}

/// One machine of a site.
#[derive(Clone)]
pub struct Machine {
    site: Arc<Site>,
    inner: lab::Machine,
    name: String,
    number: u8,
}

impl Machine {
    /// A machine alone with `outside`.
    ///
    /// # Errors
    /// When not root, or the kernel lacks something.
    pub fn create() -> anyhow::Result<Self> {
        Site::create(Families::V4)?.machine("node-1", 1)
    }

    /// Its name on the segment.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its site.
    pub fn site(&self) -> &Arc<Site> {
        &self.site
    }

    /// Its address: the IPv4 one, where it has one.
    pub fn address(&self) -> IpAddr {
        self.v4().unwrap_or_else(|| v6(self.number))
    }

    /// Its IPv6 address, where the site has them.
    pub fn address_v6(&self) -> Option<IpAddr> {
        self.v6()
    }

    fn v4(&self) -> Option<IpAddr> {
        (self.site.families != Families::V6).then(|| v4(self.number))
    }

    fn v6(&self) -> Option<IpAddr> {
        (self.site.families != Families::V4).then(|| v6(self.number))
    }

    /// The file that stands for its network namespace.
    pub fn path(&self) -> PathBuf {
        self.inner.namespace().path().to_owned()
    }

    /// Gives it its own view of mounts; `places` holds what other nodes must not see.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn separate(&self, places: &Path) -> anyhow::Result<()> {
        Ok(self.inner.separate(places)?)
    }

    /// The file that stands for its view of mounts, where it has one of its own.
    pub fn view(&self) -> Option<PathBuf> {
        self.inner.view()
    }

    /// A command that runs on the machine.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        self.inner.command(program)
    }

    /// Runs `work` on a thread of its own in the machine's network.
    pub fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let namespace = self.inner.namespace().clone();
        std::thread::spawn(move || {
            namespace.enter().expect("root may enter network namespaces");
            work()
        })
    }
}
