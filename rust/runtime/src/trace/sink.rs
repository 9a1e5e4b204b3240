//! The file of a timeline: one a process, a JSON array that is complete after every write.
//!
//! Each write begins where the array's closing bracket was and ends with a new one, in one call of
//! the system. So whoever kills the process leaves a file that can be opened.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use isobit_core::Rank;
use isobit_sys::os;

use super::event::{Event, Lane};
use crate::recorder::{Clock, Owner};

/// The variable that names the file.
const VARIABLE: &str = "ISOBIT_TRACE";
/// Where a file ends, so that nobody's disk is filled: some two million steps.
const BYTES_MAX: u64 = 256 << 20;
const CLOSING: &str = "\n]\n";

/// What the process writes to, and the rank that it is: that of its first communicator.
struct Opened {
    asked: OsString,
    process: u32,
    rank: Rank,
    sink: Arc<Mutex<Sink>>,
}

static OPENED: Mutex<Option<Opened>> = Mutex::new(None);

/// See the module.
pub(super) struct Sink {
    path: PathBuf,
    file: Option<File>,
    /// Where the closing bracket is.
    end: u64,
    bytes_max: u64,
    origin: u64,
    process: u32,
    threads: BTreeMap<Rank, u32>,
}

/// The file that `ISOBIT_TRACE` asks for, and the rank that this process is. It is opened with the
/// first communicator; that it can't be is said once, and costs nothing but the timeline.
pub(super) fn asked_for(owner: &Owner) -> Option<(Arc<Mutex<Sink>>, Rank)> {
    let asked = std::env::var_os(VARIABLE).filter(|asked| asked != OsStr::new(""))?;
    let process = std::process::id();
    let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    if !opened.as_ref().is_some_and(|one| one.process == process && one.asked == asked) {
        let alone = owner.world_size == 1 || owner.transport == "memory";
        let path = file_name(&asked, owner.rank, process, alone);
        let sink = Arc::new(Mutex::new(Sink::create(&path, BYTES_MAX)));
        *opened = Some(Opened { asked, process, rank: owner.rank, sink });
    }
    let one = opened.as_ref().expect("it was just opened");
    // Ranks that are threads are as many lanes; groups within a process's group are on its own.
    let rank = if owner.transport == "memory" { owner.rank } else { one.rank };
    Some((Arc::clone(&one.sink), rank))
}

/// `%r` is the rank and `%p` the process; where neither is given the rank goes before the extension.
fn file_name(asked: &OsStr, rank: Rank, process: u32, alone: bool) -> PathBuf {
    let mut name = Vec::new();
    let mut bytes = asked.as_bytes().iter().peekable();
    let mut is_pattern = false;
    while let Some(&byte) = bytes.next() {
        let number = match (byte, bytes.peek()) {
            (b'%', Some(b'r')) => rank,
            (b'%', Some(b'p')) => process,
            _ => {
                name.push(byte);
                continue;
            }
        };
        bytes.next();
        is_pattern = true;
        name.extend(number.to_string().into_bytes());
    }
    let path = PathBuf::from(OsStr::from_bytes(&name));
    if alone || is_pattern {
        return path;
    }
    let mut extension = OsString::from(rank.to_string());
    if let Some(given) = path.extension() {
        extension.push(".");
        extension.push(given);
    }
    path.with_extension(extension)
}

impl Sink {
    fn create(path: &Path, bytes_max: u64) -> Sink {
        let (file, process) = (File::create(path), std::process::id());
        let clock = Clock::new();
        let mut sink = Sink {
            path: path.to_owned(),
            file: None,
            end: 0,
            bytes_max,
            origin: clock.ns(std::time::Instant::now()),
            process,
            threads: BTreeMap::new(),
        };
        match file {
            Ok(file) => sink.file = Some(file),
            Err(error) => sink.give_up(&error),
        }
        sink
    }

    fn give_up(&mut self, error: &io::Error) {
        eprintln!("isobit: {VARIABLE}: {} can't be written: {error}; there is no trace", self.path.display());
        self.file = None;
    }

    /// A lane for a communicator; its name and that of its rank are written.
    pub(super) fn lane(&mut self, owner: &Owner, process: Rank) -> Lane {
        let thread = self.threads.entry(process).or_insert(0);
        *thread += 1;
        let lane = Lane { process, thread: *thread };
        let mut lines = Vec::new();
        if *thread == 1 {
            let name = format!("rank {process} of {} ({}, {})", owner.world_size, os::host(), self.process);
            let origin = self.origin;
            let new = String::new;
            lines.push(lane.metadata(new(), "process_name", |arguments| arguments.text("name", &name)));
            lines.push(
                lane.metadata(new(), "process_sort_index", |arguments| {
                    arguments.number("sort_index", process)
                }),
            );
            // Lets those of several processes be laid over one another.
            lines.push(
                lane.metadata(new(), "isobit_clock", |arguments| arguments.number("origin_ns", origin)),
            );
        }
        let Owner { rank, world_size, group, transport } = owner;
        let name = format!("group {group:016x}: rank {rank} of {world_size}, {transport}");
        lines.push(lane.metadata(String::new(), "thread_name", |arguments| arguments.text("name", &name)));
        self.append(&lines.join(",\n"));
        lane
    }

    /// Writes the entries of a lane.
    pub(super) fn write(&mut self, lane: &Lane, events: &[Event]) {
        let mut text = String::new();
        for event in events {
            if !text.is_empty() {
                text.push_str(",\n");
            }
            text = event.write(lane, text, self.origin);
        }
        self.append(&text);
    }

    fn append(&mut self, lines: &str) {
        // In a forked child the file is its parent's.
        if lines.is_empty() || self.process != std::process::id() {
            return;
        }
        let Some(file) = &self.file else { return };
        if self.end + lines.len() as u64 > self.bytes_max {
            eprintln!(
                "isobit: {VARIABLE}: {} has {} MiB: the trace ends here",
                self.path.display(),
                self.bytes_max >> 20
            );
            self.file = None;
            return;
        }
        let opening = if self.end == 0 { "[\n" } else { ",\n" };
        let text = format!("{opening}{lines}{CLOSING}");
        match file.write_all_at(text.as_bytes(), self.end) {
            Ok(()) => self.end += (text.len() - CLOSING.len()) as u64,
            Err(error) => self.give_up(&error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_file_has_its_rank_in_its_name() {
        let name = |asked: &str, alone| file_name(OsStr::new(asked), 7, 99, alone).display().to_string();
        assert_eq!(name("a/trace.json", false), "a/trace.7.json");
        assert_eq!(name("a.b/trace", false), "a.b/trace.7");
        assert_eq!(name("trace-%r-%p.json", false), "trace-7-99.json");
        assert_eq!(name("trace.json", true), "trace.json");
        assert_eq!(name("50%.json", true), "50%.json");
    }

    #[test]
    fn the_file_is_a_whole_array_after_every_write_and_ends_in_time() {
        let path = std::env::temp_dir().join(format!("isobit-trace-{}.json", std::process::id()));
        let mut sink = Sink::create(&path, 40);
        sink.append("{\"a\":1}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "[\n{\"a\":1}\n]\n");
        sink.append("{\"b\":2},\n{\"c\":3}");
        let whole = "[\n{\"a\":1},\n{\"b\":2},\n{\"c\":3}\n]\n";
        assert_eq!(fs::read_to_string(&path).unwrap(), whole);
        sink.append("{\"too much\":4}");
        assert_eq!(fs::read_to_string(&path).unwrap(), whole);
        fs::remove_file(&path).unwrap();
    }
}
