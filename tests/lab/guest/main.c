/* SPDX-License-Identifier: Apache-2.0
 *
 * Start the workload's threads, keep the millisecond tick, say once a second
 * on standard output how things stand.
 */
#define _GNU_SOURCE
#include "workload.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define READY_POLL_US 100000

struct table *table;
static uint64_t tick_gap_us;             /* longest since the last status line */
struct options options = {
    .guests = 1, .rate = 25, .message_bytes = 512, .dirty_rate = 500, .dirty_mb = 8,
    .disk_ms = 50, .slots = 1024, .tick_us = 1000, .base_port = 7000,
    .address4 = "10.20.0.%d", .address6 = "fd20:1::%d", .address_udp = "10.20.1.%d",
};

uint64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000ULL + t.tv_nsec / 1000;
}

uint64_t cycles(void)
{
    return __builtin_ia32_rdtsc();
}

void sleep_until_us(uint64_t when_us)
{
    struct timespec t = { when_us / 1000000, when_us % 1000000 * 1000 };
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
        ;
}

void die(const char *what)
{
    printf("LAB fatal %s: %s\n", what, strerror(errno));
    fflush(stdout);
    exit(1);
}

void count_gap(uint64_t *buckets, uint64_t *max, uint64_t gap_us)
{
    int bucket = gap_us ? 64 - __builtin_clzll(gap_us) : 0;
    buckets[bucket < GAP_BUCKETS ? bucket : GAP_BUCKETS - 1]++;
    if (gap_us > *max)
        *max = gap_us;
}

void publish(uint64_t *field, uint64_t value)
{
    __atomic_store_n(field, value, __ATOMIC_SEQ_CST);
}

static void *tick_run(void *unused)
{
    uint64_t last = now_us(), next = last;

    (void)unused;
    for (;;) {
        next += options.tick_us;
        sleep_until_us(next);
        uint64_t now = now_us();
        publish(&table->ticks, table->ticks + 1);
        publish(&table->uptime_us, now);
        count_gap(table->tick_gaps, &table->tick_gap_max_us, now - last);
        if (now - last > __atomic_load_n(&tick_gap_us, __ATOMIC_RELAXED))
            __atomic_store_n(&tick_gap_us, now - last, __ATOMIC_RELAXED);
        last = now;
        if (now > next + 1000000)        /* do not repay a second of debt */
            next = now;
    }
    return NULL;
}

/* The table's physical address, for a host that reads our memory: a huge page
 * is contiguous and, unlike a locked small page, is never moved. */
static uint64_t physical_address(void *where)
{
    uint64_t entry = 0;
    int fd = open("/proc/self/pagemap", O_RDONLY);

    if (fd < 0 || pread(fd, &entry, 8, (uintptr_t)where / 4096 * 8) != 8 || !(entry >> 63))
        die("pagemap");
    close(fd);
    return (entry & ((1ULL << 55) - 1)) * 4096;
}

static void make_table(void)
{
    if (sizeof(struct table) > TABLE_BYTES)
        die("table size");
    if (options.table_path) {
        int fd = open(options.table_path, O_RDWR | O_CREAT | O_TRUNC, 0600);
        if (fd < 0 || ftruncate(fd, TABLE_BYTES))
            die(options.table_path);
        table = mmap(NULL, TABLE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    } else {
        table = mmap(NULL, TABLE_BYTES, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
    }
    if (table == MAP_FAILED)
        die("table memory");
    memset(table, 0, sizeof *table);
    table->version = TABLE_VERSION;
    table->header_bytes = (char *)table->disk - (char *)table;
    table->link_bytes = sizeof(struct link_counters);
    table->disk_bytes = sizeof(struct disk_counters);
    table->guest = options.guest;
    table->guests = options.guests;
    table->disks = options.disk_count;
    if (getrandom(&table->life, 8, 0) != 8)
        die("getrandom");
    publish(&table->magic, TABLE_MAGIC);
    if (!options.table_path)
        printf("LAB table %#lx\n", physical_address(table));
    fflush(stdout);
}

static void parse(int argc, char **argv)
{
    struct { const char *name; int *value; } numbers[] = {
        { "guest", &options.guest }, { "guests", &options.guests },
        { "rate", &options.rate }, { "message_bytes", &options.message_bytes },
        { "dirty_rate", &options.dirty_rate }, { "dirty_mb", &options.dirty_mb },
        { "fill_mb", &options.fill_mb }, { "disk_ms", &options.disk_ms },
        { "slots", &options.slots }, { "tick_us", &options.tick_us },
        { "base_port", &options.base_port },
    };
    struct { const char *name; const char **value; } strings[] = {
        { "address4", &options.address4 }, { "address6", &options.address6 },
        { "address_udp", &options.address_udp }, { "table", &options.table_path },
    };
    int known;

    for (int i = 1; i < argc; i++) {
        char *value = strchr(argv[i], '=');
        if (!value) {
            printf("LAB fatal not name=value: %s\n", argv[i]);
            exit(2);
        }
        *value++ = 0;
        known = 0;
        for (unsigned n = 0; n < sizeof numbers / sizeof *numbers; n++)
            if (!strcmp(argv[i], numbers[n].name))
                *numbers[n].value = atoi(value), known = 1;
        for (unsigned n = 0; n < sizeof strings / sizeof *strings; n++)
            if (!strcmp(argv[i], strings[n].name))
                *strings[n].value = value, known = 1;
        if (!strcmp(argv[i], "disk") && options.disk_count < MAX_DISKS)
            options.disks[options.disk_count++] = value, known = 1;
        if (!known) {
            printf("LAB fatal unknown option %s\n", argv[i]);
            exit(2);
        }
    }
}

static void say_status(void)
{
    uint64_t sent = 0, received = 0, breaks = 0, dead = 0, lost = 0, acked = 0, errors = 0;
    uint64_t bad = 0, silence_us = links_silence();
    uint64_t late_us = __atomic_exchange_n(&tick_gap_us, 0, __ATOMIC_RELAXED);

    for (unsigned i = 0; i < table->links; i++) {
        struct link_counters *l = &table->link[i];
        sent += l->sent;
        received += l->received;
        breaks += l->breaks;
        lost += l->lost;
        dead += l->state == DEAD || l->state == BROKEN;
    }
    for (unsigned i = 0; i < table->disks; i++) {
        acked += table->disk[i].acked;
        errors += table->disk[i].errors;
        bad += table->disk[i].bad_reads;
    }
    printf("LAB status {\"up_ms\": %lu, \"ready\": %lu, \"sent\": %lu, \"received\": %lu, "
           "\"breaks\": %lu, \"dead\": %lu, \"udp_lost\": %lu, \"acked\": %lu, "
           "\"io_errors\": %lu, \"bad_reads\": %lu, \"dirty_bad\": %lu, "
           "\"ticks\": %lu, \"timeouts\": %lu, \"silence_us\": %lu, \"tick_gap_us\": %lu}\n",
           now_us() / 1000, table->ready, sent, received, breaks, dead, lost, acked,
           errors, bad, table->dirty_bad, table->ticks, table->tcp_timeouts, silence_us,
           late_us);
    fflush(stdout);
    table->status_lines++;
}

static void start(void *(*run)(void *), void *argument)
{
    pthread_t thread;

    if (pthread_create(&thread, NULL, run, argument))
        die("thread");
}

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN);
    parse(argc, argv);
    if (options.table_path)              /* a plain process: end with the test */
        prctl(PR_SET_PDEATHSIG, SIGKILL);
    make_table();
    start(tick_run, NULL);
    memory_fill();
    if (options.dirty_rate)
        start(memory_run, NULL);
    for (intptr_t i = 0; i < options.disk_count; i++)
        start(disk_run, (void *)i);
    links_connect();
    start(links_run, NULL);
    while (!links_heard())
        sleep_until_us(now_us() + READY_POLL_US);
    publish(&table->ready, 1);
    printf("LAB ready after %lu ms\n", now_us() / 1000);
    fflush(stdout);
    for (uint64_t next = now_us();;) {
        next += 1000000;
        sleep_until_us(next);
        links_sample();
        say_status();
    }
}
