//! One suite for every transport: the cases of `transport_support/`, instantiated.

#[path = "transport_support/mod.rs"]
mod support;

#[path = "transport_support/buffered.rs"]
mod buffered;
#[path = "transport_support/cases.rs"]
mod cases;
#[path = "transport_support/damaged.rs"]
mod damaged;
#[path = "transport_support/shared.rs"]
mod shared;

use isobit::transport::shm::{ShmOptions, Way};
use isobit::transport::{self, MemoryTransport, ShmTransport, Tamper};
use support::Fixture;

struct Memory;

impl Fixture for Memory {
    type T = MemoryTransport;

    fn group(world_size: u32) -> Vec<MemoryTransport> {
        transport::memory::group(world_size)
    }

    fn tamper(transport: &mut MemoryTransport, tamper: Tamper) {
        transport.set_tamper(tamper);
    }
}

/// Ranks as threads, each with a connection of its own: the code is that of processes, but for their ends.
struct Shm;

impl Fixture for Shm {
    type T = ShmTransport;

    fn group(world_size: u32) -> Vec<ShmTransport> {
        support::shm_group(world_size, ShmOptions::for_ranks(world_size))
    }

    fn tamper(transport: &mut ShmTransport, tamper: Tamper) {
        transport.set_tamper(tamper);
    }
}

/// The same with rings that hold little more than two messages, so that they wrap and fill all the time.
struct SmallRings;

impl Fixture for SmallRings {
    type T = ShmTransport;

    fn group(world_size: u32) -> Vec<ShmTransport> {
        let options = ShmOptions { capacities: [64 * 1024, 43_008], payload_bytes_max: 20_000 };
        support::shm_group(world_size, options)
    }

    fn tamper(transport: &mut ShmTransport, tamper: Tamper) {
        transport.set_tamper(tamper);
    }
}

/// The same with payloads that are written past the caches, whatever is faster.
struct Streaming;

impl Fixture for Streaming {
    type T = ShmTransport;

    fn group(world_size: u32) -> Vec<ShmTransport> {
        let mut group = support::shm_group(world_size, ShmOptions::for_ranks(world_size));
        group.iter_mut().for_each(|transport| transport.send_only(Way::Streamed));
        group
    }

    fn tamper(transport: &mut ShmTransport, tamper: Tamper) {
        transport.set_tamper(tamper);
    }
}

macro_rules! conformance {
    ($transport:ident, $fixture:ty, [$($case:ident),* $(,)?]) => {
        mod $transport {
            $(#[test]
            fn $case() {
                super::cases::$case::<$fixture>();
            })*
        }
    };
}

macro_rules! every_case {
    ($transport:ident, $fixture:ty) => {
        conformance!(
            $transport,
            $fixture,
            [
                a_group_knows_itself,
                messages_arrive_in_order_and_once,
                a_header_arrives_as_it_was_given,
                a_full_channel_does_not_hold_up_the_other,
                ranks_that_all_send_much_before_receiving_do_not_deadlock,
                a_full_window_says_not_now_and_later_takes_more,
                a_copy_beside_a_message_is_made_if_that_is_sent_and_only_then,
                the_window_holds_what_the_capabilities_say,
                lent_frames_are_held_while_others_arrive_and_dropped_in_any_order,
                a_send_is_complete_when_the_receiver_has_verified_it,
                a_message_whose_header_was_looked_at_stays_and_its_send_is_not_complete,
                a_message_damaged_once_is_sent_again_and_arrives_right,
                a_message_damaged_twice_is_a_corruption_that_names_both_ranks,
                a_withdrawn_message_is_passed_over_unless_it_is_there_whole,
                a_buffered_message_arrives_and_a_damaged_one_is_mended_without_its_sender,
                a_damaged_buffered_message_is_mended_though_its_sender_never_calls_again,
                a_message_other_than_the_expected_one_stays_for_who_takes_any,
                a_buffered_message_damaged_twice_is_a_corruption,
                an_abort_reaches_every_rank_in_its_wait_and_the_first_wins,
                an_abort_comes_before_waiting_messages,
                a_closed_peer_is_lost_with_its_reason_after_its_last_message,
                a_close_ends_the_wait_of_who_waits_for_it,
                a_dropped_transport_is_a_lost_peer,
                sends_that_a_peer_verified_before_it_left_are_complete,
                frames_outlive_their_transport,
                the_empty_and_the_largest_payload_arrive,
                a_wait_for_nothing_ends_at_its_time,
                everything_that_is_waited_for_ends_a_wait,
                only_the_expected_message_is_copied_and_a_damaged_one_stays,
                who_sleeps_is_woken_when_room_is_given_back,
                what_is_shared_reaches_every_rank_and_what_is_damaged_is_mended,
                what_is_shared_and_not_sent_makes_room_when_its_operation_ends,
                eight_ranks_exchange_random_traffic,
            ]
        );
    };
}

every_case!(memory, crate::Memory);
every_case!(shm, crate::Shm);
every_case!(shm_with_small_rings, crate::SmallRings);
every_case!(shm_that_streams, crate::Streaming);
