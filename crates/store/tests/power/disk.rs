//! A disk in memory that behaves as badly as a real one may: what was not
//! synced is lost, torn or reordered when the power goes; writes and syncs
//! fail; a failed sync forgets what it was asked to keep; space runs out.

use std::{collections::BTreeMap, sync::Mutex};

use rand::{Rng, SeedableRng, rngs::StdRng};

/// What one sector holds is written as a whole or not at all.
const SECTOR: usize = 512;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    Io,
    Full,
}

/// Which operations a fault hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Read,
    Write,
    Sync,
}

#[derive(Debug, Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Truncate(usize),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write(offset, data) => {
                let end = offset + data.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[*offset..end].copy_from_slice(data);
            }
            Self::Truncate(length) => bytes.resize(*length, 0),
        }
    }

    /// Applies some of the sectors.
    fn tear(&self, bytes: &mut Vec<u8>, random: &mut StdRng) {
        let Self::Write(offset, data) = self else { return };
        let mut start = 0;
        while start < data.len() {
            let end = (start + SECTOR - (offset + start) % SECTOR).min(data.len());
            if random.random() {
                Self::Write(offset + start, data[start..end].to_vec()).apply(bytes);
            }
            start = end;
        }
    }
}

#[derive(Debug, Clone, Default)]
struct File {
    /// What survives.
    durable: Vec<u8>,
    /// What readers see.
    current: Vec<u8>,
    /// What lies between the two, in order.
    pending: Vec<Change>,
    /// Whether the file's name survives.
    named: bool,
}

impl File {
    fn change(&mut self, change: Change) {
        change.apply(&mut self.current);
        self.pending.push(change);
    }

    fn sync(&mut self) {
        for change in self.pending.drain(..) {
            change.apply(&mut self.durable);
        }
        self.named = true;
    }

    /// A sync that fails: some of it reached the disk, and all of it counts as
    /// clean from now on. With `evict`, readers see what really is on disk.
    fn fail_sync(&mut self, evict: bool, random: &mut StdRng) {
        for change in self.pending.drain(..) {
            if random.random() {
                change.tear(&mut self.durable, random);
            }
        }
        if evict {
            self.current.clone_from(&self.durable);
        }
    }

    /// What is left when the power goes.
    fn cut(&self, random: &mut StdRng) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        match random.random_range(0..4) {
            0 => {}
            1 => self.pending.iter().for_each(|change| change.apply(&mut bytes)),
            2 => {
                let whole = random.random_range(0..=self.pending.len());
                self.pending[..whole].iter().for_each(|change| change.apply(&mut bytes));
                if let Some(next) = self.pending.get(whole) {
                    next.tear(&mut bytes, random);
                }
            }
            _ => {
                for change in &self.pending {
                    match random.random_range(0..3) {
                        0 => {}
                        1 => change.apply(&mut bytes),
                        _ => change.tear(&mut bytes, random),
                    }
                }
            }
        }
        bytes
    }
}

struct State {
    files: BTreeMap<String, File>,
    random: StdRng,
    /// Writes, truncations, syncs and deletions so far.
    operations: u64,
    /// The power goes during this operation.
    cut_at: Option<u64>,
    /// What was left when it went.
    image: Option<BTreeMap<String, File>>,
    /// A kind of operation that fails while this number of them has not passed.
    fault: Option<(Kind, u64)>,
    evict: bool,
    capacity: Option<usize>,
}

pub(crate) struct Disk(Mutex<State>);

impl Disk {
    pub(crate) fn new(seed: u64) -> Self {
        Self::with(BTreeMap::new(), seed)
    }

    fn with(files: BTreeMap<String, File>, seed: u64) -> Self {
        Self(Mutex::new(State {
            files,
            random: StdRng::seed_from_u64(seed),
            operations: 0,
            cut_at: None,
            image: None,
            fault: None,
            evict: false,
            capacity: None,
        }))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Cuts the power during the operation that is `after` from now.
    pub(crate) fn cut_after(&self, after: u64) {
        let mut state = self.state();
        state.cut_at = Some(state.operations + after);
    }

    /// Cuts the power now if it is still there; returns a disk with what is left.
    pub(crate) fn remains(&self, seed: u64) -> Self {
        let mut state = self.state();
        state.cut();
        Self::with(state.image.clone().unwrap(), seed)
    }

    /// What a new process finds after the old one was killed: what it wrote, be
    /// it synced or not. The old one reaches nothing any more.
    pub(crate) fn survivor(&self, seed: u64) -> Self {
        let mut state = self.state();
        state.image.get_or_insert_default();
        Self::with(state.files.clone(), seed)
    }

    /// Lets the next `times` operations of a kind fail. With `evict`, a failed
    /// sync also throws away what readers saw.
    pub(crate) fn fail(&self, kind: Kind, times: u64, evict: bool) {
        let mut state = self.state();
        state.fault = Some((kind, times));
        state.evict = evict;
    }

    /// Leaves room for this many bytes more, or for any number.
    pub(crate) fn room(&self, bytes: Option<usize>) {
        let mut state = self.state();
        state.capacity = bytes.map(|bytes| bytes + state.used());
    }

    pub(crate) fn open(&self, name: &str) {
        let mut state = self.state();
        state.files.entry(name.to_owned()).or_default();
    }

    pub(crate) fn exists(&self, name: &str) -> bool {
        self.state().files.contains_key(name)
    }

    pub(crate) fn size(&self, name: &str) -> usize {
        self.state().files.get(name).map_or(0, |file| file.current.len())
    }

    /// Fills the buffer as far as the file goes; says how far.
    pub(crate) fn read(
        &self,
        name: &str,
        offset: usize,
        buffer: &mut [u8],
    ) -> Result<usize, Failure> {
        let mut state = self.state();
        if state.image.is_some() || state.hit(Kind::Read) {
            return Err(Failure::Io);
        }
        let file = state.files.get(name).ok_or(Failure::Io)?;
        let available = file.current.get(offset..).unwrap_or_default();
        let length = available.len().min(buffer.len());
        buffer[..length].copy_from_slice(&available[..length]);
        Ok(length)
    }

    pub(crate) fn write(&self, name: &str, offset: usize, data: &[u8]) -> Result<(), Failure> {
        let mut state = self.state();
        let size = state.files.get(name).ok_or(Failure::Io)?.current.len();
        let growth = (offset + data.len()).saturating_sub(size);
        if state.capacity.is_some_and(|capacity| state.used() + growth > capacity) {
            // Part of it may still have been written.
            let part = data[..data.len() / 2].to_vec();
            if offset + part.len() <= size {
                state.change(name, Change::Write(offset, part))?;
            }
            return Err(Failure::Full);
        }
        if state.hit(Kind::Write) {
            return Err(Failure::Io);
        }
        state.change(name, Change::Write(offset, data.to_vec()))
    }

    pub(crate) fn truncate(&self, name: &str, length: usize) -> Result<(), Failure> {
        self.state().change(name, Change::Truncate(length))
    }

    pub(crate) fn sync(&self, name: &str) -> Result<(), Failure> {
        let mut state = self.state();
        state.operation()?;
        let failed = state.hit(Kind::Sync);
        let State { files, random, evict, .. } = &mut *state;
        let file = files.get_mut(name).ok_or(Failure::Io)?;
        if failed {
            file.fail_sync(*evict, random);
            return Err(Failure::Io);
        }
        file.sync();
        Ok(())
    }

    pub(crate) fn delete(&self, name: &str) -> Result<(), Failure> {
        let mut state = self.state();
        state.operation()?;
        state.files.remove(name);
        Ok(())
    }

    /// Writes a file over itself and syncs it.
    pub(crate) fn rewrite(&self, name: &str) -> Result<(), Failure> {
        if !self.exists(name) {
            return Ok(());
        }
        let bytes = self.state().files[name].current.clone();
        self.write(name, 0, &bytes)?;
        self.sync(name)
    }
}

impl State {
    fn used(&self) -> usize {
        self.files.values().map(|file| file.current.len()).sum()
    }

    /// Whether the fault hits an operation of this kind.
    fn hit(&mut self, kind: Kind) -> bool {
        match &mut self.fault {
            Some((faulty, times)) if *faulty == kind => {
                *times -= 1;
                if *times == 0 {
                    self.fault = None;
                }
                true
            }
            _ => false,
        }
    }

    /// Counts an operation; fails if the power is gone, or goes now.
    fn operation(&mut self) -> Result<(), Failure> {
        self.operations += 1;
        if self.cut_at.is_some_and(|at| self.operations >= at) {
            self.cut();
        }
        if self.image.is_some() { Err(Failure::Io) } else { Ok(()) }
    }

    fn change(&mut self, name: &str, change: Change) -> Result<(), Failure> {
        if self.image.is_none() {
            // The power may go in the middle of it.
            self.files.get_mut(name).ok_or(Failure::Io)?.change(change);
        }
        self.operation()
    }

    fn cut(&mut self) {
        if self.image.is_some() {
            return;
        }
        let mut image = BTreeMap::new();
        for (name, file) in &self.files {
            if file.named || self.random.random() {
                let bytes = file.cut(&mut self.random);
                let kept =
                    File { durable: bytes.clone(), current: bytes, pending: vec![], named: true };
                image.insert(name.clone(), kept);
            }
        }
        self.image = Some(image);
    }
}
