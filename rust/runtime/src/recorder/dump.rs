//! Dumps: the flight recorder as JSON lines, in a file that somebody asked for.
//!
//! The first line says whose they are, each other one is an operation. `docs/debugging.md` names the
//! fields; `isobit flight` reads them.

use isobit_sys::clock;
use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::{fs, io};

use isobit_core::wire::{Channel, Collective};
use isobit_sys::os;

use super::{FlightRecorder, OperationRecord, OperationState};
use crate::error::ErrorKind;
use crate::json::Object;

/// The variable that names the folder for dumps of operations that fail.
const FOLDER: &str = "ISOBIT_FLIGHT";

impl FlightRecorder {
    /// The operations as JSON, one line each, the latest at the end; the first line says whose they
    /// are, and `reason` why they were asked for.
    pub fn json_lines(&self, reason: &str) -> String {
        let host = os::host();
        let mut text = self
            .whose(Object::new().text("isobit", "flight recorder").number("version", 1_u32), &host)
            .number("world_size", self.0.owner.world_size)
            .text("transport", self.0.owner.transport)
            .number("operations", self.count())
            .number("time_ns", self.0.clock.scale().ns(clock::ticks()))
            .text("reason", reason)
            .end();
        for record in self.records() {
            text.push('\n');
            text = self.line(&record, Object::on(text), &host);
        }
        text.push('\n');
        text
    }

    fn whose(&self, object: Object, host: &str) -> Object {
        let owner = &self.0.owner;
        object
            .number("rank", owner.rank)
            .text("group", &format!("{:016x}", owner.group))
            .text("host", host)
            .number("pid", self.0.process)
    }

    fn line(&self, record: &OperationRecord, object: Object, host: &str) -> String {
        let descriptor = &record.descriptor;
        let (state, error) = match record.state {
            OperationState::Started => ("started", None),
            OperationState::Completed => ("completed", None),
            OperationState::Failed(kind) => ("failed", Some(kind.name())),
        };
        let (channel, operation) = match (record.channel, descriptor.collective) {
            (Channel::PointToPoint, _) if descriptor.root == Some(self.0.owner.rank) => ("pair", "send"),
            (Channel::PointToPoint, _) => ("pair", "recv"),
            (Channel::Collective, collective) => ("collective", collective.name()),
        };
        let root = descriptor.root.filter(|_| descriptor.collective != Collective::PointToPoint);
        let contract = descriptor.contract.map(|contract| contract.to_string());
        self.whose(object, host)
            .number("epoch", record.epoch)
            .text("channel", channel)
            .number("sequence", record.sequence)
            .text("operation", operation)
            .text("dtype", &descriptor.dtype.to_string())
            .number("count", descriptor.count)
            .optional_text("contract", contract.as_deref())
            .optional_number("root", root.map(u64::from))
            .text("shape", &format!("{:016x}", descriptor.shape))
            .text("layout", &format!("{:016x}", descriptor.layout))
            .optional_number("peer", record.peer.map(u64::from))
            .optional_number("tag", record.peer.map(|_| record.tag))
            .number("bytes", record.bytes)
            .optional_text("site", record.site.name().as_deref())
            .text("state", state)
            .optional_text("error", error)
            .number("start_ns", record.start_ns)
            .optional_number("end_ns", record.end_ns)
            .number("waited_ns", record.waited_ns)
            .optional_number("awaited", record.awaited.map(u64::from))
            .end()
    }

    /// Writes [`FlightRecorder::json_lines`] to a file, which is there whole or not at all.
    pub fn dump(&self, path: &Path, reason: &str) -> io::Result<()> {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{}.part", std::process::id()));
        let part = Path::new(&name);
        let written = fs::File::create(part)
            .and_then(|mut file| file.write_all(self.json_lines(reason).as_bytes()))
            .and_then(|()| fs::rename(part, path));
        if written.is_err() {
            // It may not even exist; the error that is reported is the one that counts.
            let _ = fs::remove_file(part);
        }
        written
    }

    /// Writes a dump to `folder`, under a name of its own. A later one of the same communicator
    /// takes its place: it knows all that matters of the earlier one.
    pub fn dump_to(&self, folder: &Path, reason: &str) -> io::Result<PathBuf> {
        let owner = &self.0.owner;
        fs::create_dir_all(folder)?;
        let path = folder.join(format!(
            "flight-{:016x}-rank{}-{}-{}.jsonl",
            owner.group,
            owner.rank,
            os::host(),
            self.0.process
        ));
        self.dump(&path, reason)?;
        Ok(path)
    }
}

/// Writes a dump if `ISOBIT_FLIGHT` names a folder and the operation did not merely get wrong
/// arguments. That a dump can't be written must not hide the error that it is about.
pub(crate) fn dump_if_asked(recorder: &FlightRecorder, kind: ErrorKind) {
    let Some(folder) = std::env::var_os(FOLDER).filter(|folder| folder != OsStr::new("")) else { return };
    if let Err(error) = recorder.dump_to(Path::new(&folder), kind.name()) {
        eprintln!("isobit: {FOLDER}={}: the flight recorder can't be written: {error}", folder.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorder::Recorder;
    use crate::recorder::tests::{begin, owner, record};
    use crate::site::Site;

    #[test]
    fn a_dump_is_a_line_that_says_whose_it_is_and_one_a_record() {
        let mut recorder = Recorder::new(owner());
        begin(&mut recorder, &OperationRecord { site: Site::of("a \"b\".py", 3), ..record(7) });
        recorder.end(Some(ErrorKind::PeerLost));
        let text = recorder.handle().json_lines("a test");
        let [whose, operation] = text.lines().collect::<Vec<_>>()[..] else { panic!("{text}") };
        let field = |line: &str, field: &str| assert!(line.contains(field), "{field} is not in {line}");
        for expected in ["\"rank\":1", "\"world_size\":3", "\"reason\":\"a test\"", "\"operations\":1"] {
            field(whose, expected);
        }
        for expected in [
            "\"group\":\"0000000000000abc\"",
            "\"sequence\":7",
            "\"operation\":\"broadcast\"",
            "\"root\":0",
            "\"state\":\"failed\",\"error\":\"PeerLost\"",
            "\"site\":\"a \\\"b\\\".py:3\"",
        ] {
            field(operation, expected);
        }
    }

    #[test]
    fn a_dump_that_can_not_be_written_leaves_nothing_behind() {
        let folder = std::env::temp_dir().join(format!("isobit-dump-{}", std::process::id()));
        let recorder = Recorder::new(owner());
        let recorder = recorder.handle();
        let path = recorder.dump_to(&folder, "a test").unwrap();
        assert!(recorder.dump(&folder, "to a folder").is_err());
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        assert!(fs::read_to_string(&path).unwrap().starts_with("{\"isobit\":"));
        fs::remove_dir_all(&folder).unwrap();
    }
}
