/* SPDX-License-Identifier: Apache-2.0
 *
 * Write numbered blocks, each made durable before the next, and read some
 * back.  Block n lies in slot n % slots.  Every sector of a block carries the
 * whole story (life, number, place, checksum), so that a block put together
 * from two writes shows, and the number is repeated at the sector's end.
 */
#define _GNU_SOURCE
#include "workload.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SECTOR 512
#define SECTORS 8
#define BLOCK (SECTOR * SECTORS)
#define SECTOR_MAGIC 0x314b434f4c42534cULL    /* "LSBLOCK1" */
#define READ_EVERY 16

struct sector {
    uint64_t magic, life, seq, nonce;
    uint32_t disk, index;
    uint64_t payload[(SECTOR - 56) / 8];
    uint64_t seq_again;
    uint32_t zero, crc;                       /* of all bytes before `crc` */
};
_Static_assert(sizeof(struct sector) == SECTOR, "a sector is 512 bytes");

static uint32_t crc_table[256];

static uint32_t crc32(const void *data, size_t length)
{
    const uint8_t *byte = data;
    uint32_t crc = ~0u;

    while (length--)
        crc = crc_table[(crc ^ *byte++) & 255] ^ crc >> 8;
    return ~crc;
}

static void make_crc_table(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int k = 0; k < 8; k++)
            c = c & 1 ? 0xedb88320u ^ c >> 1 : c >> 1;
        crc_table[i] = c;
    }
}

static void fill_block(struct sector *block, int disk, uint64_t seq)
{
    uint64_t nonce = mix(cycles() ^ now_us());

    for (int i = 0; i < SECTORS; i++) {
        struct sector *s = &block[i];
        s->magic = SECTOR_MAGIC;
        s->life = table->life;
        s->seq = s->seq_again = seq;
        s->nonce = nonce;
        s->disk = disk;
        s->index = i;
        s->zero = 0;
        for (unsigned w = 0; w < sizeof s->payload / 8; w++)
            s->payload[w] = nonce + seq * 977 + i * 64 + w;
        s->crc = crc32(s, SECTOR - 4);
    }
}

static int block_is(const struct sector *block, int disk, uint64_t seq)
{
    for (int i = 0; i < SECTORS; i++) {
        const struct sector *s = &block[i];
        if (s->magic != SECTOR_MAGIC || s->life != table->life || s->seq != seq ||
            s->seq_again != seq || s->nonce != block->nonce || s->disk != (uint32_t)disk ||
            s->index != (uint32_t)i || s->crc != crc32(s, SECTOR - 4))
            return 0;
    }
    return 1;
}

static int open_disk(const char *path)
{
    int fd = open(path, O_RDWR | O_DIRECT);

    if (fd < 0 && errno == EINVAL)            /* a file on tmpfs, in tests */
        fd = open(path, O_RDWR);
    if (fd < 0)
        die(path);
    return fd;
}

static void read_back(int fd, int disk, struct disk_counters *d, struct sector *block)
{
    uint64_t oldest = d->acked > d->slots ? d->acked - d->slots + 1 : 1;
    uint64_t seq = oldest + mix(cycles()) % (d->acked - oldest + 1);

    if (pread(fd, block, BLOCK, seq % d->slots * BLOCK) != BLOCK) {
        d->last_errno = errno;
        publish(&d->errors, d->errors + 1);
    } else if (!block_is(block, disk, seq)) {
        publish(&d->bad_reads, d->bad_reads + 1);
    }
    d->reads++;
}

void *disk_run(void *disk_index)
{
    int disk = (intptr_t)disk_index;
    struct disk_counters *d = &table->disk[disk];
    int fd = open_disk(options.disks[disk]);
    struct sector *block = aligned_alloc(4096, BLOCK);
    uint64_t next = now_us();

    make_crc_table();
    d->slots = options.slots;
    d->block_bytes = BLOCK;
    for (uint64_t seq = 1;; seq++) {
        next += options.disk_ms * 1000ULL;
        sleep_until_us(next);
        if (now_us() > next + 1000000)
            next = now_us();

        fill_block(block, disk, seq);
        d->ring[seq % BLOCK_RING] = (struct entry){ seq, block->crc };
        publish(&d->started, seq);
        uint64_t began = now_us();
        while (pwrite(fd, block, BLOCK, seq % d->slots * BLOCK) != BLOCK || fdatasync(fd)) {
            d->last_errno = errno;
            publish(&d->errors, d->errors + 1);
            sleep_until_us(now_us() + 100000);
        }
        publish(&d->acked, seq);
        if (now_us() - began > d->slowest_us)
            d->slowest_us = now_us() - began;
        if (seq % READ_EVERY == 0)
            read_back(fd, disk, d, block);
    }
}
