#!/usr/bin/env bash
# Runs the unsafe crate's tests, and the runtime's on top of it, under tools that watch every access to memory.
#
#   AddressSanitizer  every test of isobit-sys and isobit but those of LONG: out of bounds, after free, leaks
#   valgrind          isobit-sys's memory, ring, spans and kernel bounds: also use of what nobody wrote
#   Miri              the ring, the board and spans on heap memory: also Rust's aliasing rules
#
# What can't run here is named as LEFT OUT, with the reason; what runs and fails ends the script with status 1.
set -uo pipefail
cd "$(dirname "$0")/.."

# Exhaustive sweeps over 2^32 inputs: minutes natively, an hour here. kernels_bounds covers their accesses.
LONG=(every_f32_becomes_the_laws_)
# What valgrind's processor and kernel lack: the flags of inexact arithmetic, and pidfd.
UNKNOWN=(fpenv::tests:: os::wake::tests::a_process_that_ends)
HOST=$(rustc -vV | sed -n 's/^host: //p')
declare -a SUMMARY=()
failed=0

ran() { # name status
	if [ "$2" = 0 ]; then SUMMARY+=("passed    $1"); else SUMMARY+=("FAILED    $1"); failed=1; fi
}
left_out() { SUMMARY+=("LEFT OUT  $1: $2"); }

echo "== AddressSanitizer"
if compgen -G "$(rustc --print target-libdir)/librustc*_rt.asan.a" > /dev/null; then
	# Unstable flags on a stable compiler: for a check only, nothing that is built so is shipped.
	RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=address" CARGO_TARGET_DIR=target/sanitize \
		ASAN_OPTIONS=detect_leaks=1:allocator_may_return_null=1 \
		cargo test --locked --target "$HOST" -p isobit-sys -p isobit --lib --tests --no-fail-fast -- -q "${LONG[@]/#/--skip=}"
	ran "AddressSanitizer over isobit-sys and isobit" $?
	left_out "AddressSanitizer over ${LONG[*]}*" "sweeps of 2^32 inputs; kernels_bounds covers their accesses"
else
	left_out "AddressSanitizer" "$(rustc --version) comes without its runtime"
fi

echo "== valgrind"
if command -v valgrind > /dev/null; then
	# Valgrind knows no AVX-512 and says so to programs: the kernels up to AVX2 run.
	messages=$(cargo test --locked -p isobit-sys --lib --test kernels_bounds --no-run 2>&1) || echo "$messages"
	status=0
	for binary in $(sed -n 's/^ *Executable .*(\(.*\))$/\1/p' <<< "$messages"); do
		valgrind --quiet --error-exitcode=9 \
			"$binary" -q --test-threads=1 "${UNKNOWN[@]/#/--skip=}" || status=$?
	done
	[ -n "$messages" ] && grep -q Executable <<< "$messages" || status=1
	ran "valgrind over isobit-sys (lib, kernels_bounds)" $status
	left_out "valgrind over ${UNKNOWN[*]}" "it has no inexact flag and no pidfd"
	left_out "valgrind over AVX-512 kernels" "valgrind does not know the instructions; AddressSanitizer covers them"
else
	left_out "valgrind" "it is not installed (apt-get install valgrind)"
fi

echo "== Miri"
if cargo miri --version > /dev/null 2>&1; then
	cargo miri test -p isobit-sys --lib os::ring os::board
	ran "Miri over the ring and the board" $?
else
	left_out "Miri" "this toolchain has none (rustup +nightly component add miri)"
fi

echo "== summary"
printf '%s\n' "${SUMMARY[@]}"
exit $failed
