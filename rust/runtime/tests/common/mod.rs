//! A group of ranks on threads, and tensors of random elements, for the communicator's tests.
#![allow(dead_code, reason = "each test file uses its part")]

use std::thread;
use std::time::Duration;

use isobit::{Call, Communicator, Dtype, Error};

/// Runs `body` on every rank of a group over memory; what each rank gives, by rank.
pub(crate) fn on_ranks<T: Send>(world_size: u32, body: impl Fn(&mut Communicator) -> T + Sync) -> Vec<T> {
    let ranks = Communicator::memory_group(world_size);
    thread::scope(|scope| {
        let body = &body;
        let threads: Vec<_> = ranks
            .into_iter()
            .map(|mut comm| {
                comm.set_timeout(Duration::from_secs(20));
                scope.spawn(move || {
                    let given = body(&mut comm);
                    comm.close();
                    given
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("the rank's body does not panic")).collect()
    })
}

/// Makes a call that is not interrupted.
pub(crate) fn calling<T>(
    shape: &[u64],
    body: impl FnOnce(&mut Call<'_>) -> Result<T, Error>,
) -> Result<T, Error> {
    body(&mut Call { shape, timeout: None, interrupt: &mut || false })
}

/// The bits of element `index` of leaf `leaf`: a mixture of ordinary and special values.
pub(crate) fn bits(dtype: Dtype, leaf: u32, index: u64) -> u64 {
    let mut x = (u64::from(leaf) << 32) ^ index ^ 0x9e37_79b9_7f4a_7c15;
    for _ in 0..3 {
        x = (x ^ (x >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    }
    let random = x ^ (x >> 29);
    match dtype {
        Dtype::F32 if index % 17 != 3 => {
            let exponent = 110 + (random >> 40) % 30;
            (random & 0x807f_ffff) | (exponent << 23)
        }
        Dtype::F64 if index % 17 != 3 => {
            let exponent = 1000 + (random >> 32) % 40;
            (random & 0x800f_ffff_ffff_ffff) | (exponent << 52)
        }
        Dtype::Bool => random & 1,
        _ => random,
    }
}

/// A leaf of `count` elements.
pub(crate) fn leaf(dtype: Dtype, leaf: u32, count: u64) -> Vec<u8> {
    (0..count).flat_map(|index| bits(dtype, leaf, index).to_le_bytes()[..dtype.size()].to_vec()).collect()
}
