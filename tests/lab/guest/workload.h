/* SPDX-License-Identifier: Apache-2.0
 *
 * The lab guest's workload: what it counts, and where the host finds it.
 *
 * All counters live in one physically contiguous table, so that the host can
 * read them while the guest stands still.  Two rules make a table read at an
 * arbitrary instant meaningful:
 *
 *   - what may have left the guest is counted *before* it can leave: `sent`
 *     rises before send(), `started` before pwrite();
 *   - what has arrived is counted after it was read and checked: `received`
 *     rises after recv(), `acked` after fdatasync().
 *
 * So `received > sent` between two tables, or a disk newer than `started`,
 * can only mean that the tables belong to no common past.  Each table has one
 * writer per field; a ring entry is written before the number that names it.
 */
#ifndef WORKLOAD_H
#define WORKLOAD_H

#include <stdint.h>

#define TABLE_MAGIC   0x31424154444f4d48ULL   /* "HMODTAB1", little endian */
#define TABLE_VERSION 2
#define TABLE_BYTES   (2u << 20)
#define MAX_LINKS     48
#define MAX_DISKS     4
#define RING          256                     /* recent messages remembered */
#define BLOCK_RING    64
#define GAP_BUCKETS   24                      /* log2 of microseconds */

enum kind { TCP4, TCP6, UDP4, KINDS };
enum state { WAITING, UP, DEAD, BROKEN };

struct entry { uint64_t seq, sum; };

struct link_counters {
    uint64_t peer, kind, state, error;
    uint64_t sent, received;         /* last sequence number each way */
    uint64_t breaks;                 /* chain did not continue, or garbage */
    uint64_t lost, reordered;        /* UDP alone */
    uint64_t gap_max_us;             /* longest silence between two arrivals */
    uint64_t retransmits;            /* tcpi_total_retrans, once a second */
    uint64_t refused;                /* send() found the buffer full */
    uint64_t reserved[4];
    uint64_t gaps[GAP_BUCKETS];      /* arrivals by log2(silence in us) */
    struct entry sent_ring[RING], received_ring[RING];
};

struct disk_counters {
    uint64_t started, acked;
    uint64_t errors, last_errno;
    uint64_t bad_reads;              /* read back: torn, old or foreign */
    uint64_t slots, block_bytes;
    uint64_t slowest_us;             /* longest write with fdatasync */
    uint64_t reads;
    uint64_t reserved[7];
    struct entry ring[BLOCK_RING];   /* sum: CRC of the block's first sector */
};

struct table {
    uint64_t magic, version, header_bytes, link_bytes, disk_bytes;
    uint64_t guest, guests, links, disks;
    uint64_t life;                   /* random, one boot */
    uint64_t ready;                  /* every link up and heard from */
    uint64_t uptime_us;
    uint64_t ticks, tick_gap_max_us;
    uint64_t dirty_pages, dirty_writes, dirty_bad;
    uint64_t filled_bytes;
    uint64_t tcp_timeouts, tcp_retransmits, tcp_spurious;
    uint64_t status_lines;
    uint64_t reserved[18];
    uint64_t tick_gaps[GAP_BUCKETS];
    struct disk_counters disk[MAX_DISKS];
    struct link_counters link[MAX_LINKS];
};

struct options {
    int guest, guests;
    int rate;                        /* messages a second, link and direction */
    int message_bytes;               /* longest */
    int dirty_rate, dirty_mb;        /* pages a second, within so many MB */
    int fill_mb;
    int disk_ms, slots;
    int tick_us;
    int base_port;                   /* port of guest i: base_port + i */
    const char *address4, *address6, *address_udp;   /* printf formats of i + 1 */
    const char *disks[MAX_DISKS];
    int disk_count;
    const char *table_path;          /* a file to map, or NULL: a huge page */
};

extern struct table *table;
extern struct options options;

uint64_t now_us(void);
uint64_t cycles(void);
void sleep_until_us(uint64_t when_us);
void die(const char *what);
void count_gap(uint64_t *buckets, uint64_t *max, uint64_t gap_us);
void publish(uint64_t *field, uint64_t value);
static inline uint64_t mix(uint64_t x)
{
    x ^= x >> 30; x *= 0xbf58476d1ce4e5b9ULL;
    x ^= x >> 27; x *= 0x94d049bb133111ebULL;
    return x ^ x >> 31;
}

void links_connect(void);            /* returns once every TCP link is up */
void *links_run(void *);
int links_heard(void);               /* something arrived on every link */
uint64_t links_silence(void);        /* longest between arrivals since last asked, us */
void links_sample(void);             /* retransmissions, from the kernel */
void *disk_run(void *disk_index);
void *memory_run(void *);
void memory_fill(void);

#endif
