/* One rank of `isobit bench` for any MPI: it does what the driver says on a Unix socket, and answers with times.

   It is the same program as isobit/bench/rank.py and rust/runtime/examples/bench_rank.rs: the same data, the same
   loop, the same clock. While no round is on it sits in read(), never inside MPI. */

#define _GNU_SOURCE
#include <mpi.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

/* As in pattern.py. */
#define PERIOD 65521
#define STEP 977

static int rank, ranks;
static FILE *requests, *answers;

struct element {
    const char *name;
    size_t bytes;
    MPI_Datatype mpi;
};

/* A case: memory is `bytes` on the side that holds a whole tensor, a block on the other. */
struct work {
    const char *collective;
    struct element element;
    int count, block;
    char *input, *out;
    size_t input_count, out_count;
};

static int is(const struct work *w, const char *name) { return strcmp(w->collective, name) == 0; }

static void answer(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(answers, format, arguments);
    va_end(arguments);
    if (strchr(format, '\n')) fflush(answers);
}

static int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static uint32_t value(uint64_t index, int of) {
    uint32_t k = (uint32_t)((index + (uint64_t)STEP * (uint64_t)of) % PERIOD);
    return (uint32_t)(k * 2654435761u) >> (ranks <= 8 ? 28 : 31);
}

static void encode(const struct element *e, uint32_t number, char *to) {
    if (!strcmp(e->name, "f32")) {
        float x = (float)number;
        memcpy(to, &x, sizeof x);
    } else if (!strcmp(e->name, "f64")) {
        double x = number;
        memcpy(to, &x, sizeof x);
    } else if (!strcmp(e->name, "bf16")) {
        float x = (float)number; /* no more than 256: its lower half is zero */
        memcpy(to, (char *)&x + sizeof x - e->bytes, e->bytes);
    } else if (!strcmp(e->name, "f16")) {
        int power = 0;
        while (number >> (power + 1)) power++;
        uint16_t x = number ? (uint16_t)((uint32_t)(power + 14) * 1024 + number * (1024u >> power)) : 0;
        memcpy(to, &x, sizeof x);
    } else {
        uint64_t x = number; /* little-endian integers */
        memcpy(to, &x, e->bytes);
    }
}

/* Whether this MPI adds such elements: a type in its header need not be one in its library. In an MPICH that was built
   without it, it has a size but no name, and using it ends the process. */
static int adds(const struct element *e) {
    int size = 0, length = 0;
    char name[MPI_MAX_OBJECT_NAME], one[8], sum[8], expected[8];
    encode(e, 1, one);
    encode(e, 2, sum);
    encode(e, 3, expected);
    /* Whose handler it is that an error of MPI_Reduce_local calls depends on the standard's version. */
    MPI_Comm_set_errhandler(MPI_COMM_SELF, MPI_ERRORS_RETURN);
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    int adds = e->mpi != MPI_DATATYPE_NULL && MPI_Type_size(e->mpi, &size) == MPI_SUCCESS &&
               (size_t)size == e->bytes && MPI_Type_get_name(e->mpi, name, &length) == MPI_SUCCESS && length &&
               MPI_Reduce_local(one, sum, 1, e->mpi, MPI_SUM) == MPI_SUCCESS &&
               !memcmp(sum, expected, e->bytes);
    MPI_Comm_set_errhandler(MPI_COMM_SELF, MPI_ERRORS_ARE_FATAL);
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_ARE_FATAL);
    return adds;
}

/* One period of what rank `of` has, or of the sum of all ranks where `of` is negative. */
static char *table(const struct element *e, int of) {
    char *made = malloc(PERIOD * e->bytes);
    if (!made) return NULL;
    for (uint64_t i = 0; i < PERIOD; i++) {
        uint32_t number = of < 0 ? 0 : value(i, of);
        for (int r = 0; of < 0 && r < ranks; r++) number += value(i, r);
        encode(e, number, made + i * e->bytes);
    }
    return made;
}

/* How many elements of `memory` are not those of the table from element `start` on; or, to fill it, puts them there. */
static long long pass(const struct element *e, const char *one, uint64_t start, char *memory, size_t count, int fill) {
    long long wrong = 0;
    size_t done = 0;
    while (done < count) {
        size_t at = (size_t)((start + done) % PERIOD), some = PERIOD - at;
        if (some > count - done) some = count - done;
        char *here = memory + done * e->bytes;
        const char *there = one + at * e->bytes;
        if (fill)
            memcpy(here, there, some * e->bytes);
        else if (memcmp(here, there, some * e->bytes))
            for (size_t i = 0; i < some; i++) wrong += memcmp(here + i * e->bytes, there + i * e->bytes, e->bytes) != 0;
        done += some;
    }
    return wrong;
}

static long long pass_of(const struct work *w, int of, uint64_t start, char *memory, size_t count, int fill) {
    char *one = table(&w->element, of);
    if (!one) return -1;
    long long wrong = pass(&w->element, one, start, memory, count, fill);
    free(one);
    return wrong;
}

static long long check(const struct work *w) {
    uint64_t block = (uint64_t)w->block, mine = block * (uint64_t)rank;
    if (is(w, "all_reduce") || (is(w, "reduce") && rank == 0)) return pass_of(w, -1, 0, w->out, w->out_count, 0);
    if (is(w, "reduce_scatter")) return pass_of(w, -1, mine, w->out, w->out_count, 0);
    if (is(w, "scatter")) return pass_of(w, 0, mine, w->out, w->out_count, 0);
    if (is(w, "broadcast")) return pass_of(w, 0, 0, w->out, w->out_count, 0);
    if (is(w, "send_recv") && rank < 2) return pass_of(w, 1 - rank, 0, w->out, w->out_count, 0);
    long long wrong = 0;
    if (is(w, "all_gather") || (is(w, "gather") && rank == 0) || is(w, "all_to_all"))
        for (int r = 0; r < ranks; r++) {
            uint64_t start = is(w, "all_to_all") ? mine : 0;
            wrong += pass_of(w, r, start, w->out + (size_t)r * block * w->element.bytes, block, 0);
        }
    return wrong;
}

static int call(const struct work *w) {
    MPI_Datatype t = w->element.mpi;
    MPI_Comm all = MPI_COMM_WORLD;
    if (is(w, "all_reduce")) return MPI_Allreduce(w->input, w->out, w->count, t, MPI_SUM, all);
    if (is(w, "reduce")) return MPI_Reduce(w->input, w->out, w->count, t, MPI_SUM, 0, all);
    if (is(w, "reduce_scatter")) return MPI_Reduce_scatter_block(w->input, w->out, w->block, t, MPI_SUM, all);
    if (is(w, "all_gather")) return MPI_Allgather(w->input, w->block, t, w->out, w->block, t, all);
    if (is(w, "gather")) return MPI_Gather(w->input, w->block, t, w->out, w->block, t, 0, all);
    if (is(w, "scatter")) return MPI_Scatter(w->input, w->block, t, w->out, w->block, t, 0, all);
    if (is(w, "broadcast")) return MPI_Bcast(w->out, w->count, t, 0, all);
    if (is(w, "all_to_all")) return MPI_Alltoall(w->input, w->block, t, w->out, w->block, t, all);
    if (is(w, "barrier")) return MPI_Barrier(all);
    if (rank > 1) return 0;
    if (rank == 0) MPI_Send(w->input, w->count, t, 1, 0, all);
    MPI_Recv(w->out, w->count, t, 1 - rank, 0, all, MPI_STATUS_IGNORE);
    if (rank == 1) MPI_Send(w->input, w->count, t, 0, 0, all);
    return 0;
}

/* How much this rank gives and gets, in elements. */
static void lay_out(struct work *w) {
    size_t whole = (size_t)w->count, block = (size_t)w->block;
    int root = rank == 0, pair = rank < 2;
    w->input_count = w->out_count = 0;
    if (is(w, "all_reduce") || is(w, "all_to_all")) w->input_count = w->out_count = whole;
    if (is(w, "reduce")) w->input_count = whole, w->out_count = root ? whole : 0;
    if (is(w, "reduce_scatter")) w->input_count = whole, w->out_count = block;
    if (is(w, "all_gather")) w->input_count = block, w->out_count = whole;
    if (is(w, "gather")) w->input_count = block, w->out_count = root ? whole : 0;
    if (is(w, "scatter")) w->input_count = root ? whole : 0, w->out_count = block;
    if (is(w, "broadcast")) w->out_count = whole;
    if (is(w, "send_recv")) w->input_count = w->out_count = pair ? whole : 0;
}

static void measure(struct work *w, int iterations, int warmup, int synchronised) {
    lay_out(w);
    size_t size = w->element.bytes;
    int64_t *times = malloc((size_t)iterations * sizeof *times);
    w->input = malloc(w->input_count * size + 1);
    w->out = malloc(w->out_count * size + 1);
    if (!times || !w->input || !w->out) {
        answer("error there is no memory for this size\n");
        goto done;
    }
    pass_of(w, rank, 0, w->input, w->input_count, 1);
    memset(w->out, 0xff, w->out_count * size);
    int sends_it = is(w, "broadcast") && rank == 0;
    if (sends_it) pass_of(w, 0, 0, w->out, w->out_count, 1);
    for (int i = 0; i < warmup; i++) call(w);
    if (!sends_it) memset(w->out, 0xff, w->out_count * size);
    MPI_Barrier(MPI_COMM_WORLD);
    for (int i = 0; i < iterations; i++) {
        if (synchronised) MPI_Barrier(MPI_COMM_WORLD);
        int64_t start = now();
        call(w);
        times[i] = now() - start;
    }
    answer("done %lld", check(w));
    for (int i = 0; i < iterations; i++) answer(" %lld", (long long)times[i]);
    answer("\n");
done:
    free(times);
    free(w->input);
    free(w->out);
}

static int open_driver(void) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *path = getenv("ISOBIT_BENCH_SOCKET");
    int connection = socket(AF_UNIX, SOCK_STREAM, 0);
    if (!path || connection < 0 || strlen(path) >= sizeof address.sun_path) return 0;
    strcpy(address.sun_path, path);
    if (connect(connection, (struct sockaddr *)&address, sizeof address)) return 0;
    requests = fdopen(connection, "r");
    answers = fdopen(dup(connection), "w");
    return requests && answers;
}

int main(int count, char **words) {
    /* Whoever started this rank does not outlive it. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    MPI_Init(&count, &words);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    if (!open_driver()) {
        fprintf(stderr, "bench: the driver's socket can't be reached\n");
        MPI_Abort(MPI_COMM_WORLD, 1);
    }
    char version[MPI_MAX_LIBRARY_VERSION_STRING];
    int length;
    MPI_Get_library_version(version, &length);
    version[strcspn(version, "\r\n")] = 0;
    answer("hello %s %d %d %d %s\n", getenv("ISOBIT_BENCH_NAME"), rank, ranks, (int)getpid(), version);
    const struct element elements[] = {{"f32", 4, MPI_FLOAT},    {"f64", 8, MPI_DOUBLE}, {"i8", 1, MPI_INT8_T},
                                       {"u8", 1, MPI_UINT8_T},   {"i32", 4, MPI_INT32_T}, {"i64", 8, MPI_INT64_T},
                                       {"u32", 4, MPI_UINT32_T}, {"u64", 8, MPI_UINT64_T},
#ifdef MPIX_C_FLOAT16
                                       {"f16", 2, MPIX_C_FLOAT16},
#endif
#ifdef MPIX_C_BF16
                                       {"bf16", 2, MPIX_C_BF16},
#endif
    };
    char line[256], collective[32], dtype[16], order[16];
    while (fgets(line, sizeof line, requests) && strcmp(line, "end\n")) {
        long long bytes;
        int iterations, warmup, synchronised;
        if (sscanf(line, "run %31s %15s %15s %lld %d %d %d", collective, dtype, order, &bytes, &iterations, &warmup,
                   &synchronised) != 7) {
            answer("error not understood: %s", line);
            continue;
        }
        struct work w = {.collective = collective};
        for (size_t i = 0; i < sizeof elements / sizeof *elements; i++)
            if (!strcmp(elements[i].name, dtype)) w.element = elements[i];
        if (!w.element.name || !adds(&w.element)) {
            answer("unsupported this MPI has no %s\n", dtype);
        } else if (bytes / (long long)w.element.bytes > INT32_MAX) {
            answer("unsupported MPI counts to 2^31 - 1\n");
        } else {
            w.count = (int)(bytes / (long long)w.element.bytes);
            w.block = w.count / ranks;
            measure(&w, iterations, warmup, synchronised);
        }
    }
    if (feof(requests)) _exit(1); /* The driver is gone: so are the others, soon. */
    MPI_Finalize();
    return 0;
}
