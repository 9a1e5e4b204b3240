/* What the bytes of a collective take with nothing else: loops that copy and add, and a ring in shared memory from each
 * rank to each other one; or the kernel's copies from one process to another, which are also read once more by both if
 * that is asked for, as any checksum has to. No checksum, no header, no check of who calls what, no repeat of what was
 * damaged, no deadline: whoever starts the ranks ends them when one has ended. For bounds.py, which compiles it, and
 * host.py; at most 64 ranks. */

#define _GNU_SOURCE
#include <immintrin.h>
#include <sched.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>

enum { LINE = 64, PIECE = 128 << 10, FLOATS = PIECE / 4, LAG = 2 };
enum { ALL_REDUCE, REDUCE_SCATTER, ALL_GATHER, ALL_TO_ALL, BROADCAST, COPY };
enum { RING_STREAMED = 1, RESULT_STREAMED = 2, AT_ONCE = 4, BY_KERNEL = 8, READ_TOO = 16 };

/* What is small lies in the line that announces it, in one of two by turns: who has the other's next has seen its last. */
struct line {
    _Alignas(LINE) _Atomic unsigned long number;
    float data[14];
};

struct ring {
    struct line small[2];
    _Alignas(LINE) _Atomic unsigned long sent;
    _Alignas(LINE) _Atomic unsigned long taken;
    _Alignas(4096) char data[];
};

struct bare {
    char *memory;
    size_t ring_bytes;
    int ranks, rank, shares_cores;
    unsigned long sent[64], taken[64], number;
    /* Of every rank: its process, its tensor, its result. */
    pid_t process[64];
    char *given[64], *got[64];
    /* Whether the kernel refused to read another process. */
    int refused;
    char piece[PIECE];
};

static struct ring *ring(const struct bare *b, int from, int to) {
    size_t each = sizeof(struct ring) + b->ring_bytes;
    return (struct ring *)(b->memory + each * (size_t)(from * b->ranks + to));
}

size_t bare_bytes(int ranks, size_t ring_bytes) {
    return (sizeof(struct ring) + ring_bytes) * (size_t)(ranks * ranks);
}

size_t bare_size(void) { return sizeof(struct bare); }

void bare_init(struct bare *b, char *memory, size_t ring_bytes, int ranks, int rank, int cores) {
    *b = (struct bare){.memory = memory, .ring_bytes = ring_bytes, .ranks = ranks, .rank = rank, .shares_cores = ranks > cores};
}

static void relax(const struct bare *b) {
    if (b->shares_cores) sched_yield(); else _mm_pause();
}

/* Lines of 64 bytes, as wide as the processor has them. */
#if defined(__AVX512F__)
typedef __m512 wide;
#define LOAD(p) _mm512_loadu_ps(p)
#define STORE(p, v) _mm512_storeu_ps(p, v)
#define STREAM(p, v) _mm512_stream_ps(p, v)
#define ADD(a, b) _mm512_add_ps(a, b)
#else
typedef __m256 wide;
#define LOAD(p) _mm256_loadu_ps(p)
#define STORE(p, v) _mm256_storeu_ps(p, v)
#define STREAM(p, v) _mm256_stream_ps(p, v)
#define ADD(a, b) _mm256_add_ps(a, b)
#endif
enum { WIDE = sizeof(wide) / 4 };

/* to = from, or from + with. */
static void work(float *to, const float *from, const float *with, size_t count, int streamed) {
    size_t i = 0;
    for (; i < count && (size_t)(to + i) % LINE; i++) to[i] = with ? from[i] + with[i] : from[i];
    if (streamed && with)
        for (; i + WIDE <= count; i += WIDE) STREAM(to + i, ADD(LOAD(from + i), LOAD(with + i)));
    else if (streamed)
        for (; i + WIDE <= count; i += WIDE) STREAM(to + i, LOAD(from + i));
    else if (with)
        for (; i + WIDE <= count; i += WIDE) STORE(to + i, ADD(LOAD(from + i), LOAD(with + i)));
    else if (count - i >= WIDE) {
        memcpy(to + i, from + i, (count - i) / WIDE * WIDE * 4);
        i += (count - i) / WIDE * WIDE;
    }
    for (; i < count; i++) to[i] = with ? from[i] + with[i] : from[i];
    if (streamed) _mm_sfence();
}

/* Where the next message lies: whole, and behind the one before or at the ring's start. */
static unsigned long place(const struct bare *b, unsigned long at, size_t bytes) {
    size_t in_ring = at % b->ring_bytes;
    return in_ring + bytes > b->ring_bytes ? at + (b->ring_bytes - in_ring) : at;
}

static size_t padded(size_t bytes) { return (bytes + LINE - 1) / LINE * LINE; }

static void push(struct bare *b, int to, const float *from, size_t count, int way) {
    struct ring *r = ring(b, b->rank, to);
    size_t bytes = padded(count * 4);
    unsigned long at = place(b, b->sent[to], bytes), end = at + bytes;
    while (end - atomic_load_explicit(&r->taken, memory_order_acquire) > b->ring_bytes) relax(b);
    work((float *)(r->data + at % b->ring_bytes), from, NULL, count, way & RING_STREAMED);
    b->sent[to] = end;
    atomic_store_explicit(&r->sent, end, memory_order_release);
}

/* Takes the next message, and adds `with` if there is any. */
static void pull(struct bare *b, int from, float *to, const float *with, size_t count, int way) {
    struct ring *r = ring(b, from, b->rank);
    size_t bytes = padded(count * 4);
    unsigned long at = place(b, b->taken[from], bytes), end = at + bytes;
    while (atomic_load_explicit(&r->sent, memory_order_acquire) < end) relax(b);
    work(to, (const float *)(r->data + at % b->ring_bytes), with, count, way & RESULT_STREAMED);
    b->taken[from] = end;
    atomic_store_explicit(&r->taken, end, memory_order_release);
}

/* The sum of what all others send and of `own`. */
static void reduce(struct bare *b, float *to, const float *own, size_t count, int way) {
    const float *with = own;
    for (int k = 1; k < b->ranks; k++) {
        int last = k == b->ranks - 1;
        pull(b, (b->rank + k) % b->ranks, to, with, count, last ? way : way & ~RESULT_STREAMED);
        with = to;
    }
}

static void push_all(struct bare *b, const float *from, size_t count, int way) {
    for (int k = 1; k < b->ranks; k++) push(b, (b->rank + k) % b->ranks, from, count, way);
}

/* All ranks to all others in the line that announces it; a sum, or block after block. */
static void small(struct bare *b, const float *given, float *got, size_t count, int adds) {
    unsigned long number = ++b->number;
    for (int k = 1; k < b->ranks; k++) {
        struct line *line = &ring(b, b->rank, (b->rank + k) % b->ranks)->small[number % 2];
        memcpy(line->data, given, count * 4);
        atomic_store_explicit(&line->number, number, memory_order_release);
    }
    memcpy(adds ? got : got + (size_t)b->rank * count, given, count * 4);
    for (int k = 1; k < b->ranks; k++) {
        int from = (b->rank + k) % b->ranks;
        struct line *line = &ring(b, from, b->rank)->small[number % 2];
        while (atomic_load_explicit(&line->number, memory_order_acquire) != number) relax(b);
        for (size_t i = 0; i < count; i++)
            if (adds) got[i] += line->data[i]; else got[(size_t)from * count + i] = line->data[i];
    }
}

void bare_meet(struct bare *b, int rank, int process, char *given, char *got) {
    b->process[rank] = process, b->given[rank] = given, b->got[rank] = got;
}

int bare_refused(const struct bare *b) { return b->refused; }

/* Waits until all are here. */
static void meet(struct bare *b) {
    float one = 1, all[64];
    small(b, &one, all, 1, 0);
}

static size_t part(size_t block, size_t piece) {
    return block - piece * FLOATS < FLOATS ? block - piece * FLOATS : FLOATS;
}

volatile float bare_seen;

/* Reads it and does nothing: the least that a checksum takes, which the kernel does not make while it copies. */
static void look(const float *at, size_t count) {
    wide sums[4] = {0};
    for (size_t i = 0; i + 4 * WIDE <= count; i += 4 * WIDE)
        for (size_t k = 0; k < 4; k++) sums[k] = ADD(sums[k], LOAD(at + i + k * WIDE));
    sums[0] = ADD(ADD(sums[0], sums[1]), ADD(sums[2], sums[3]));
    bare_seen = ((float *)sums)[0];
}

/* Takes what another rank has from where it lies; to be checked, piece by piece, while those are in the cache. */
static void fetch(struct bare *b, int from, float *to, const char *at, size_t count, int way) {
    size_t piece = way & READ_TOO ? FLOATS : count;
    for (size_t i = 0; i < count; i += piece) {
        size_t bytes = (count - i < piece ? count - i : piece) * 4;
        struct iovec here = {to + i, bytes}, there = {(void *)(at + i * 4), bytes};
        if (process_vm_readv(b->process[from], &here, 1, &there, 1, 0) != (ssize_t)bytes) b->refused = 1;
        if (way & READ_TOO) look(to + i, bytes / 4);
    }
}

static void once(struct bare *b, int what, const float *given, float *got, size_t count, int way) {
    size_t block = count / (size_t)b->ranks, mine = block * (size_t)b->rank, n = (block + FLOATS - 1) / FLOATS;
    int result = way & RESULT_STREAMED;
    if (what == ALL_REDUCE && way & AT_ONCE) {
        if (count <= 14) return small(b, given, got, count, 1);
        push_all(b, given, count, way);
        return reduce(b, got, given, count, way);
    }
    if (what == ALL_GATHER && block <= 14) return small(b, given, got, block, 0);
    if (what == COPY) return work(got, given, NULL, count, result);
    if (what == BROADCAST) {
        for (size_t p = 0; p * FLOATS < count; p++) {
            size_t at = p * FLOATS, len = part(count, p);
            if (b->rank == 0) push_all(b, given + at, len, way);
            else pull(b, 0, got + at, NULL, len, way);
        }
        return;
    }
    size_t rounds = n + (what == ALL_REDUCE ? 2 * LAG : LAG);
    for (size_t p = 0; p < rounds; p++) {
        size_t at = p * FLOATS;
        for (int k = 1; k < b->ranks && p < n; k++) {
            int to = (b->rank + k) % b->ranks;
            push(b, to, given + (what == ALL_GATHER ? 0 : block * (size_t)to) + at, part(block, p), way);
        }
        if (what == ALL_GATHER && p < n) work(got + mine + at, given + at, NULL, part(block, p), result);
        if (what == ALL_TO_ALL && p < n) work(got + mine + at, given + mine + at, NULL, part(block, p), result);
        if (p >= LAG && p < n + LAG) {
            size_t q = p - LAG, at = q * FLOATS, len = part(block, q);
            if (what == ALL_REDUCE) {
                reduce(b, got + mine + at, given + mine + at, len, 0);
                push_all(b, got + mine + at, len, way);
            } else if (what == REDUCE_SCATTER) {
                reduce(b, got + at, given + mine + at, len, way);
            } else {
                for (int k = 1; k < b->ranks; k++) {
                    int from = (b->rank + k) % b->ranks;
                    pull(b, from, got + block * (size_t)from + at, NULL, len, way);
                }
            }
        }
        if (what == ALL_REDUCE && p >= 2 * LAG) {
            size_t q = p - 2 * LAG, at = q * FLOATS;
            for (int k = 1; k < b->ranks; k++) {
                int from = (b->rank + k) % b->ranks;
                pull(b, from, got + block * (size_t)from + at, NULL, part(block, q), way);
            }
        }
    }
}

/* The same, read by the kernel where it lies: what is added in pieces, which stay in the cache and could be checked while
 * they are added, the rest at once. */
static void by_kernel(struct bare *b, int what, const float *given, float *got, size_t count, int way) {
    size_t block = count / (size_t)b->ranks, mine = block * (size_t)b->rank;
    int adds = what == ALL_REDUCE || what == REDUCE_SCATTER, all = what != BROADCAST;
    float *sum = what == ALL_REDUCE ? got + mine : got;
    if (way & READ_TOO && what == ALL_GATHER) look(given, block);
    if (way & READ_TOO && what == BROADCAST && !b->rank) look(given, count);
    for (int k = 1; k < b->ranks && way & READ_TOO && all && what != ALL_GATHER; k++)
        look(given + block * (size_t)((b->rank + k) % b->ranks), block);
    meet(b);
    for (size_t p = 0; adds && p * FLOATS < block; p++) {
        size_t at = p * FLOATS, len = part(block, p);
        for (int k = 1; k < b->ranks; k++) {
            int from = (b->rank + k) % b->ranks;
            fetch(b, from, (float *)b->piece, b->given[from] + (mine + at) * 4, len, way & ~READ_TOO);
            work(sum + at, (float *)b->piece, k == 1 ? given + mine + at : sum + at, len, 0);
        }
        if (way & READ_TOO && what == ALL_REDUCE) look(sum + at, len);
    }
    if (what == ALL_REDUCE) meet(b);
    for (int k = 1; k < b->ranks && !adds && all; k++) {
        int from = (b->rank + k) % b->ranks;
        fetch(b, from, got + block * (size_t)from, b->given[from] + (what == ALL_GATHER ? 0 : mine) * 4, block, way);
    }
    for (int k = 1; k < b->ranks && what == ALL_REDUCE; k++) {
        int from = (b->rank + k) % b->ranks;
        fetch(b, from, got + block * (size_t)from, b->got[from] + block * (size_t)from * 4, block, way);
    }
    if (what == BROADCAST && b->rank) fetch(b, 0, got, b->given[0], count, way);
    if (what == ALL_GATHER) work(got + mine, given, NULL, block, 0);
    if (what == ALL_TO_ALL) work(got + mine, given + mine, NULL, block, 0);
    meet(b);
}

#if defined(__AVX512F__)
/* The sum of four leaves and `count` nodes in f64: past the caches, or in place of the first node. */
static inline __attribute__((always_inline)) void merge(float **leaves, double **nodes, int count, double *to, size_t n) {
    for (size_t i = 0; i + 16 <= n; i += 16)
        for (size_t half = i; half < i + 16; half += 8) {
            __m512d leaf[4];
            for (int k = 0; k < 4; k++) leaf[k] = _mm512_cvtps_pd(_mm256_loadu_ps(leaves[k] + half));
            __m512d sum = _mm512_add_pd(_mm512_add_pd(leaf[0], leaf[1]), _mm512_add_pd(leaf[2], leaf[3]));
            for (int k = 0; k < count; k++) sum = _mm512_add_pd(sum, _mm512_load_pd(nodes[k] + half));
            if (count) _mm512_store_pd(to + half, sum); else _mm512_stream_pd(to + half, sum);
        }
    _mm_sfence();
}

/* What an accumulation of `leaves` leaves does, a power of two of at least four: three of four are held, and merged with
 * the fourth and the nodes that are complete with it. */
void bare_accumulate(float *leaf, float **held, double **nodes, int leaves, size_t n) {
    int top = 0;
    for (int k = 1; k <= leaves; k++) {
        if (k % 4) {
            work(held[k % 4 - 1], leaf, NULL, n, 1);
            continue;
        }
        float *four[4] = {held[0], held[1], held[2], leaf};
        int complete = __builtin_ctz((unsigned)k / 4);
        double **with = nodes + (top -= complete);
        switch (complete) {
        case 0: merge(four, with, 0, nodes[top], n); break;
        case 1: merge(four, with, 1, nodes[top], n); break;
        case 2: merge(four, with, 2, nodes[top], n); break;
        default: merge(four, with, complete, nodes[top], n);
        }
        top++;
    }
}
#endif

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* When each of some calls began and ended on this rank, in seconds of a clock that all ranks have. */
void bare_time(struct bare *b, int what, const float *given, float *got, size_t count, int way, int calls, double *begun,
               double *ended) {
    for (int i = 0; i < calls; i++) {
        begun[i] = now();
        if (way & BY_KERNEL) by_kernel(b, what, given, got, count, way); else once(b, what, given, got, count, way);
        ended[i] = now();
    }
}
