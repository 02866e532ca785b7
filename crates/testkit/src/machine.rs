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

/// Machines and the segment between them; removed when the last of them is dropped.
pub struct Site {
    lab: Option<Lab>,
    segment: Segment,
    ipv6: bool,
    _directory: TempDir,
}

impl Site {
    /// A segment with `outside` on it.
    ///
    /// # Errors
    /// When not root, or the kernel lacks something.
    pub fn create(ipv6: bool) -> anyhow::Result<Arc<Self>> {
        let directory = tempfile::Builder::new()
            .prefix("skiff-lab-")
            .tempdir_in("/run")
            .context("make a directory in /run: are you root?")?;
        let lab = Lab::open(directory.path().join("lab"))?;
        let segment = lab.segment("lan")?;
        let site = Arc::new(Self { lab: Some(lab), segment, ipv6, _directory: directory });
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
        let v4 = |number: u8| format!("10.77.0.{}", u16::from(number) + 1);
        let v6 = |number: u8| format!("fd77::{:x}", u16::from(number) + 1);
        let mut interface = Interface::new(DEVICE, format!("{}/24", v4(number)).parse()?);
        if self.ipv6 {
            interface = interface.address(format!("{}/64", v6(number)).parse()?);
        }
        if number == 0 {
            interface = interface.address(format!("{}/32", INTERNET[0]).parse()?);
            if self.ipv6 {
                interface = interface.address(format!("{}/128", INTERNET[1]).parse()?);
            }
        } else {
            interface = interface.gateway(v4(0).parse()?);
            if self.ipv6 {
                interface = interface.gateway(v6(0).parse()?);
            }
        }
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
        Site::create(false)?.machine("node-1", 1)
    }

    /// Its name on the segment.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its site.
    pub fn site(&self) -> &Arc<Site> {
        &self.site
    }

    /// Its IPv4 address.
    pub fn address(&self) -> IpAddr {
        IpAddr::from([10, 77, 0, self.number + 1])
    }

    /// Its IPv6 address, where the site has them.
    pub fn address_v6(&self) -> Option<IpAddr> {
        let address = [0xfd77, 0, 0, 0, 0, 0, 0, u16::from(self.number) + 1];
        self.site.ipv6.then(|| IpAddr::from(address))
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
