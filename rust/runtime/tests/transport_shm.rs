//! What only processes of one host show: how they meet, and what is seen of one that is killed or stopped.
//!
//! A child process is this test binary again, with its part in the environment.

#[path = "transport_support/mod.rs"]
#[expect(dead_code, reason = "the conformance cases use the rest")]
mod support;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use isobit::transport::shm::{ShmConfig, ShmOptions};
use isobit::transport::{Transport, TransportError};
use isobit_core::wire::Channel;
use support::{connect, job, payload, recv, send, shm_config, until};

const C: Channel = Channel::Collective;
const PART: &str = "ISOBIT_TEST_PART";

/// A child process; killed when the test is over.
struct Part(Child);

impl Part {
    fn start(part: &str, job: &str, rank: u32, world_size: u32) -> Part {
        let test = std::env::current_exe().unwrap();
        Part::spawn(Command::new(test), &format!("{part} {job} {rank} {world_size}"))
    }

    fn spawn(mut command: Command, part: &str) -> Part {
        command.args(["--exact", "a_child_plays_its_part", "--nocapture"]).env(PART, part);
        Part(command.stdout(Stdio::piped()).spawn().unwrap())
    }

    /// Waits for a line of its output.
    fn says(&mut self, line: &str) {
        let mut lines = BufReader::new(self.0.stdout.as_mut().unwrap()).lines();
        assert!(lines.any(|found| found.unwrap().contains(line)), "the child ended without saying '{line}'");
    }

    fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.0.id().to_string()]).status().unwrap();
        assert!(status.success());
    }
}

/// Returns when every thread of a process that was told to stop has stopped.
fn await_stop(process: u32) {
    let stopped = |thread: std::fs::DirEntry| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap();
        stat.rsplit(')').next().unwrap().trim_start().starts_with('T')
    };
    let tasks = format!("/proc/{process}/task");
    while !std::fs::read_dir(&tasks).unwrap().all(|thread| stopped(thread.unwrap())) {
        thread::yield_now();
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Does nothing in the parent; in a child, what the environment says.
#[test]
fn a_child_plays_its_part() {
    let Ok(part) = std::env::var(PART) else { return };
    let words: Vec<&str> = part.split(' ').collect();
    let config = shm_config(words[1], words[2].parse().unwrap(), words[3].parse().unwrap());
    if words[0] == "joins-with-few-files" {
        let error = connect(&config).err().expect("there are too few files");
        assert!(error.to_string().contains("ulimit -n"), "{error}");
        return;
    }
    let mut t = connect(&config).unwrap();
    println!("joined");
    match words[0] {
        "talks" => {
            for text in ["one", "two", "three"] {
                send(&mut t, 0, C, text.as_bytes()).unwrap();
            }
            println!("talked");
            let end = recv(&mut t, 0, C).err();
            panic!("a killed process goes on: {end:?}");
        }
        "echoes" => {
            while let Ok(frame) = recv(&mut t, 0, C) {
                let text = payload(&frame);
                send(&mut t, 0, C, &text).unwrap();
            }
        }
        "is-aborted" => {
            let aborted = TransportError::Aborted { rank: 0, reason: b"enough".to_vec() };
            assert_eq!(recv(&mut t, 0, C).err(), Some(aborted));
        }
        "waits" => loop {
            t.wait(Instant::now() + Duration::from_secs(30)).unwrap();
        },
        "returns" => {
            send(&mut t, 0, C, b"done").unwrap();
        }
        other => panic!("no part '{other}'"),
    }
}

#[test]
fn a_killed_process_is_a_lost_peer_once_its_messages_are_read() {
    let job = job();
    let mut part = Part::start("talks", &job, 1, 2);
    let mut t = connect(&shm_config(&job, 0, 2)).unwrap();
    part.says("talked");
    part.0.kill().unwrap();
    for text in ["one", "two", "three"] {
        assert_eq!(payload(&recv(&mut t, 1, C).unwrap()), text.as_bytes());
    }
    let lost = recv(&mut t, 1, C).err();
    match &lost {
        Some(TransportError::PeerLost { rank: 1, reason }) => {
            assert!(reason.contains(&part.0.id().to_string()), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(send(&mut t, 1, C, b"anyone?").err(), lost);
}

#[test]
fn a_process_that_is_killed_while_its_peer_sleeps_ends_the_sleep() {
    let job = job();
    let mut part = Part::start("waits", &job, 1, 2);
    let mut t = connect(&shm_config(&job, 0, 2)).unwrap();
    part.says("joined");
    thread::scope(|scope| {
        let sleeper = scope.spawn(|| recv(&mut t, 1, C).err());
        part.0.kill().unwrap();
        let lost = sleeper.join().unwrap();
        assert!(matches!(lost, Some(TransportError::PeerLost { rank: 1, .. })), "{lost:?}");
    });
}

#[test]
fn a_stopped_process_holds_nobody_past_his_time_and_goes_on_later() {
    let job = job();
    let part = Part::start("echoes", &job, 1, 2);
    let mut t = connect(&shm_config(&job, 0, 2)).unwrap();
    send(&mut t, 1, C, b"before").unwrap();
    assert_eq!(payload(&recv(&mut t, 1, C).unwrap()), b"before");
    part.signal("-STOP");
    await_stop(part.0.id());
    send(&mut t, 1, C, b"after").unwrap();
    let end = Instant::now() + Duration::from_millis(100);
    while Instant::now() < end {
        assert!(t.try_recv(1, C).unwrap().is_none(), "it is stopped, and not lost");
        t.wait(end).unwrap();
    }
    part.signal("-CONT");
    assert_eq!(payload(&recv(&mut t, 1, C).unwrap()), b"after");
}

#[test]
fn an_abort_reaches_a_process_that_sleeps() {
    let job = job();
    let mut part = Part::start("is-aborted", &job, 1, 2);
    let mut t = connect(&shm_config(&job, 0, 2)).unwrap();
    part.says("joined");
    t.abort(b"enough");
    assert!(part.0.wait().unwrap().success());
}

#[test]
fn a_process_that_returns_says_goodbye() {
    let job = job();
    let _part = Part::start("returns", &job, 1, 2);
    let mut t = connect(&shm_config(&job, 0, 2)).unwrap();
    assert_eq!(payload(&recv(&mut t, 1, C).unwrap()), b"done");
    let lost = TransportError::PeerLost { rank: 1, reason: "its transport was dropped".to_owned() };
    assert_eq!(recv(&mut t, 1, C).err(), Some(lost));
}

#[test]
fn nothing_is_left_when_every_process_is_killed() {
    let job = job();
    let mut parts = [0, 1].map(|rank| Part::start("waits", &job, rank, 2));
    for part in &mut parts {
        part.says("joined");
        part.0.kill().unwrap();
        part.0.wait().unwrap();
    }
    // The next run of the same job finds the name free and the memory new.
    let _part = Part::start("echoes", &job, 1, 2);
    let mut t = connect(&shm_config(&job, 0, 2)).unwrap();
    send(&mut t, 1, C, b"new").unwrap();
    assert_eq!(payload(&recv(&mut t, 1, C).unwrap()), b"new");
}

/// The outcome of every rank that tries to join.
fn join_all(configs: Vec<ShmConfig>) -> Vec<Result<u64, TransportError>> {
    thread::scope(|scope| {
        let threads: Vec<_> = configs
            .into_iter()
            .map(|config| {
                scope.spawn(move || {
                    let mut t = connect(&config)?;
                    // Nobody leaves before all have come.
                    let peers = (0..config.world_size).filter(|peer| *peer != config.rank);
                    for peer in peers.clone() {
                        send(&mut t, peer, C, b"here")?;
                    }
                    for peer in peers.clone() {
                        recv(&mut t, peer, C)?;
                        until(&mut t, |t| Ok((t.verified(peer, C)? == 1).then_some(())))?;
                    }
                    Ok(t.group())
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn ranks_that_do_not_come_are_named_to_all_that_did() {
    let job = job();
    let deadline = Instant::now() + Duration::from_millis(400);
    let configs = [0, 2, 4].map(|rank| ShmConfig { deadline, ..shm_config(&job, rank, 5) });
    for outcome in join_all(configs.to_vec()) {
        match outcome {
            Err(TransportError::Timeout { missing, .. }) => assert_eq!(missing, [1, 3]),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn without_rank_0_it_is_the_one_that_is_missing() {
    let deadline = Instant::now() + Duration::from_millis(50);
    let config = ShmConfig { deadline, ..shm_config(&job(), 1, 2) };
    match connect(&config).err() {
        Some(TransportError::Timeout { missing, .. }) => assert_eq!(missing, [0]),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_rank_with_another_world_size_is_named_to_everyone() {
    let job = job();
    let configs = vec![shm_config(&job, 0, 3), shm_config(&job, 1, 4)];
    for outcome in join_all(configs) {
        match outcome {
            Err(TransportError::Refused { rank: 1, reason }) => {
                assert!(reason.contains('4') && reason.contains('3'), "{reason}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn two_processes_with_one_rank_are_an_error_for_everyone() {
    let job = job();
    let configs = vec![shm_config(&job, 0, 3), shm_config(&job, 1, 3), shm_config(&job, 1, 3)];
    for outcome in join_all(configs) {
        assert!(matches!(&outcome, Err(TransportError::Refused { rank: 1, .. })), "{outcome:?}");
    }
}

#[test]
fn a_second_rank_0_is_refused_and_the_first_goes_on() {
    let job = job();
    let first = {
        let config = shm_config(&job, 0, 2);
        thread::spawn(move || connect(&config).map(|t| (t.group(), t)))
    };
    let deadline = Instant::now() + Duration::from_millis(200);
    // Either of the two may be first to listen, so the short one tries until it is second.
    let second = loop {
        let config = ShmConfig { deadline: deadline.max(Instant::now() + RETRY), ..shm_config(&job, 0, 2) };
        match connect(&config).err() {
            // It had the name: the first can take it only while this one does not.
            Some(TransportError::Timeout { .. }) => thread::sleep(RETRY),
            other => break other,
        }
    };
    assert!(matches!(second, Some(TransportError::Refused { rank: 0, .. })), "{second:?}");
    let other = connect(&shm_config(&job, 1, 2)).unwrap();
    assert_eq!(first.join().unwrap().unwrap().0, other.group());
}

const RETRY: Duration = Duration::from_millis(50);

#[test]
fn jobs_of_other_names_do_not_mix() {
    let jobs = [job(), job()];
    let configs = jobs.iter().flat_map(|job| (0..3).map(move |rank| shm_config(job, rank, 3))).collect();
    let groups: Vec<u64> = join_all(configs).into_iter().map(Result::unwrap).collect();
    assert!(groups[0] == groups[1] && groups[1] == groups[2]);
    assert!(groups[3] == groups[4] && groups[4] == groups[5]);
    assert_ne!(groups[0], groups[3]);
}

#[test]
fn the_sizes_of_rank_0_count() {
    let job = job();
    let options = ShmOptions { capacities: [8192, 4096], payload_bytes_max: 1000 };
    let other = shm_config(&job, 1, 2);
    let joining = thread::spawn(move || connect(&other).unwrap().capabilities());
    let t = connect(&ShmConfig { options, ..shm_config(&job, 0, 2) }).unwrap();
    assert_eq!(joining.join().unwrap(), t.capabilities());
    assert_eq!(t.capabilities().payload_bytes_max, 1000);
}

#[test]
fn sizes_that_can_not_be_are_said_at_once() {
    let config = |capacities, payload_bytes_max| ShmConfig {
        options: ShmOptions { capacities, payload_bytes_max },
        ..shm_config(&job(), 0, 1)
    };
    for bad in [config([4096, 4096], 2048), config([64, 4096], 1), config([4096, 4097], 100)] {
        let error = connect(&bad).err();
        assert!(matches!(error, Some(TransportError::Unavailable { .. })), "{error:?}");
    }
    let huge = ShmConfig { world_size: 2, ..config([1 << 43, 1 << 43], 1000) };
    let peer = ShmConfig { rank: 1, ..huge.clone() };
    for outcome in join_all(vec![huge, peer]) {
        let error = outcome.unwrap_err().to_string();
        assert!(error.contains("MiB") && error.contains("run fewer ranks"), "{error}");
    }
}

#[test]
fn too_few_files_are_an_error_that_says_what_to_raise() {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 5; exec \"$0\" \"$@\""]).arg(std::env::current_exe().unwrap());
    let mut part = Part::spawn(command, &format!("joins-with-few-files {} 0 1", job()));
    assert!(part.0.wait().unwrap().success());
}

/// The conformance cases hold for a transport that shares nothing as well.
#[test]
fn who_has_several_peers_can_share_and_who_has_one_can_not() {
    let body = support::kept(support::bytes(1, 9_000));
    for (world_size, shares) in [(2, false), (3, true), (8, true)] {
        let mut group = support::shm_group(world_size, ShmOptions::for_ranks(world_size));
        assert_eq!(group[0].try_share(1, body, 3).unwrap().is_some(), shares, "{world_size} ranks");
    }
}
