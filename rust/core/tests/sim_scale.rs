//! Hundreds of simulated ranks: the law's bits, and no rank whose messages are as many as the ranks.

mod scale_support;
mod sim_support;

use isobit_core::Order;
use isobit_core::wire::Collective;
use scale_support::{COLLECTIVES, check, topology};

#[test]
fn five_hundred_ranks_get_the_bits_of_the_law_with_few_messages_each() {
    for collective in COLLECTIVES {
        // An all_reduce of 1 element a rank is a butterfly, one of 9 is hierarchical.
        for (machines, each) in [(1, 9), (16, 9), (64, 1), (64, 9)] {
            let (algorithm, traffic) = check(collective, Order::Tree, &topology(512, machines), each);
            let most = traffic.iter().map(|traffic| traffic.messages).max().unwrap();
            assert!(most <= 2 * (64 + 8), "{collective} by {algorithm}: {most} messages of a rank");
        }
    }
}

#[test]
fn many_ranks_and_machines_get_the_bits_of_the_law_in_exact_order() {
    for machines in [1, 16] {
        let (_, traffic) = check(Collective::AllReduce, Order::Exact, &topology(128, machines), 3);
        assert!(traffic.iter().all(|traffic| traffic.messages < 100), "groups exchange few messages");
    }
}

#[test]
fn large_slices_on_many_machines_get_the_bits_of_the_law() {
    check(Collective::AllReduce, Order::Tree, &topology(96, 12), 300);
}
