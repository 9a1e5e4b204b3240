//! Tests of how a group forms: who is let in, and who is sent away.

use std::os::fd::AsFd;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::time::Duration;

use isobit_sys::os::socket::Listener;

use super::patience::{RETRY, Received};
use super::*;
use crate::transport::Transport;
use crate::transport::shm::records::{Join, Record};
use crate::transport::shm::{ShmOptions, ShmTransport, connect as connect_until};

fn connect(config: &ShmConfig) -> Result<ShmTransport, TransportError> {
    connect_until(config, &mut || false)
}

fn receive(socket: &Socket, config: &ShmConfig) -> Received {
    Patience::new(config, &mut || false).receive(socket, config.deadline).unwrap()
}

fn config(test: &str, rank: Rank, world_size: u32) -> ShmConfig {
    let job = format!("bootstrap-{}-{test}", std::process::id());
    let deadline = Instant::now() + Duration::from_secs(30);
    ShmConfig { job, rank, world_size, deadline, options: ShmOptions::for_ranks(world_size) }
}

/// Connects as anybody could, once rank 0 listens.
fn stranger(config: &ShmConfig) -> Socket {
    let name = name(os::user(), &config.job);
    loop {
        match Socket::connect(&name).unwrap() {
            Some(socket) => return socket,
            None => thread::sleep(RETRY),
        }
    }
}

fn say_join(socket: &Socket, change: impl FnOnce(&mut Join, &mut Vec<u8>)) {
    let mut join =
        Join { rank: 1, world_size: 2, incarnation: 5, patience_ms: 30_000, host: host().unwrap() };
    let mut bytes = Vec::new();
    change(&mut join, &mut bytes);
    if bytes.is_empty() {
        bytes = Record::Join(join).encode();
    }
    let files = [Bell::new().unwrap(), Bell::new().unwrap()];
    socket.send(&bytes, &[files[0].as_fd(), files[1].as_fd()]).unwrap();
}

fn verdict(socket: &Socket, config: &ShmConfig) -> TransportError {
    match receive(socket, config) {
        Received::Record(Record::Failed(error), _) => error,
        Received::Record(record, _) => panic!("{record:?}"),
        Received::End | Received::Late => panic!("no verdict"),
    }
}

#[test]
fn jobs_and_users_meet_under_names_of_their_own() {
    assert_eq!(name(7, "a"), name(7, "a"));
    assert_ne!(name(7, "a"), name(7, "b"));
    assert_ne!(name(7, "a"), name(8, "a"));
}

#[test]
fn another_user_at_the_other_end_is_an_error_that_names_both() {
    let config = config("user", 0, 2);
    let name = name(os::user(), &config.job);
    let listener = Listener::bind(&name).unwrap();
    let client = Socket::connect(&name).unwrap().unwrap();
    let server = listener.accept().unwrap().unwrap();
    for socket in [client, server] {
        let user = os::user();
        assert_eq!(check_user(&socket, user), Ok(()));
        let error = check_user(&socket, user + 1).unwrap_err().to_string();
        assert!(error.contains(&user.to_string()) && error.contains(&(user + 1).to_string()), "{error}");
    }
}

#[test]
fn strangers_and_ranks_that_go_again_do_not_disturb() {
    let leader = config("strangers", 0, 3);
    thread::scope(|scope| {
        let leading = scope.spawn(|| connect(&leader).unwrap().incarnation(1));
        let _silent = stranger(&leader);
        stranger(&leader).send(b"GET / HTTP/1.1", &[]).unwrap();
        drop(stranger(&leader));
        let early = stranger(&leader);
        say_join(&early, |join, _| join.world_size = 3);
        drop(early);
        // The rank comes again, and is not taken for a second one.
        let again = scope.spawn(|| connect(&config("strangers", 1, 3)).unwrap().incarnation(1));
        // Only then the last: the group is not complete before.
        let last = connect(&config("strangers", 2, 3)).unwrap();
        assert_eq!(leading.join().unwrap(), last.incarnation(1));
        assert_eq!(again.join().unwrap(), last.incarnation(1));
    });
}

#[test]
fn another_release_and_another_host_are_refused_on_both_sides() {
    type Change = fn(&mut Join, &mut Vec<u8>);
    let cases: [(&str, &str, Change); 3] = [
        ("release", "wire version", |join, bytes| {
            *bytes = Record::Join(join.clone()).encode();
            bytes[7] += 1;
        }),
        ("host", "another host", |join, _| join.host = "elsewhere".to_owned()),
        ("rank", "0 to 1", |join, _| join.rank = 2),
    ];
    for (test, words, change) in cases {
        let leader = config(test, 0, 2);
        thread::scope(|scope| {
            let leading = scope.spawn(|| connect(&leader).err().unwrap());
            let socket = stranger(&leader);
            say_join(&socket, change);
            let told = verdict(&socket, &leader);
            assert_eq!(leading.join().unwrap(), told);
            assert!(matches!(told, TransportError::Refused { rank: 1 | 2, .. }), "{told}");
            assert!(told.to_string().contains(words), "{told}");
        });
    }
}

#[test]
fn a_rank_that_goes_before_it_is_ready_is_named_to_the_others() {
    let leader = ShmConfig { world_size: 3, ..config("unready", 0, 2) };
    let other = ShmConfig { rank: 2, ..leader.clone() };
    thread::scope(|scope| {
        let leading = scope.spawn(|| connect(&leader).err().unwrap());
        let joining = scope.spawn(|| connect(&other).err().unwrap());
        let socket = stranger(&leader);
        say_join(&socket, |join, _| join.world_size = 3);
        // It gets the shared memory, and goes.
        assert!(matches!(receive(&socket, &leader), Received::Record(Record::Welcome(_), _)));
        drop(socket);
        for error in [leading.join().unwrap(), joining.join().unwrap()] {
            assert!(matches!(error, TransportError::Refused { rank: 1, .. }), "{error}");
        }
    });
}

#[test]
fn a_rank_that_waits_for_others_can_be_interrupted() {
    for rank in [0, 1] {
        let mut asked = 0;
        let mut interrupt = || {
            asked += 1;
            asked == 2
        };
        let error = connect_until(&config("interrupted", rank, 2), &mut interrupt).err();
        assert_eq!((error, asked), (Some(TransportError::Interrupted), 2));
    }
}

#[test]
fn an_interrupted_leader_tells_those_who_came() {
    let leader = config("told", 0, 3);
    let has_come = AtomicBool::new(false);
    thread::scope(|scope| {
        let leading = scope.spawn(|| {
            let mut asked = 0;
            // After each question it takes one step: it accepts the other, and hears who it is.
            let mut interrupt = || {
                asked += u32::from(asked > 0 || has_come.load(SeqCst));
                asked == 3
            };
            connect_until(&leader, &mut interrupt).err()
        });
        let socket = stranger(&leader);
        say_join(&socket, |join, _| join.world_size = 3);
        has_come.store(true, SeqCst);
        let told = verdict(&socket, &leader);
        assert_eq!(leading.join().unwrap(), Some(TransportError::Interrupted));
        assert!(matches!(told, TransportError::Refused { rank: 0, .. }), "{told}");
        assert!(told.to_string().contains("interrupted"), "{told}");
    });
}
