/* SPDX-License-Identifier: Apache-2.0
 *
 * Dirty memory at a set rate, and notice a page that belongs to another
 * instant: each page repeats its number and its own write count at both ends.
 */
#include "workload.h"

#include <string.h>
#include <sys/mman.h>

#define PAGE_WORDS 512
#define ROUND_US 10000

void memory_fill(void)
{
    size_t bytes = (size_t)options.fill_mb << 20;
    uint64_t *fill, word = table->life | 1;

    if (!bytes)
        return;
    fill = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (fill == MAP_FAILED)
        die("fill");
    for (size_t i = 0; i < bytes / 8; i++) {
        word ^= word << 13; word ^= word >> 7; word ^= word << 17;
        fill[i] = word;
        if (i % (1 << 17) == 0)
            publish(&table->filled_bytes, i * 8);
    }
    publish(&table->filled_bytes, bytes);
}

static uint64_t check_of(uint64_t page, uint64_t count)
{
    return mix(table->life ^ mix(page + 1) ^ count);
}

void *memory_run(void *unused)
{
    uint64_t pages = (uint64_t)options.dirty_mb << 8, random = table->life;
    uint64_t *memory = mmap(NULL, pages * 4096, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint64_t owed = 0, next = now_us();

    (void)unused;
    if (memory == MAP_FAILED)
        die("dirty");
    for (uint64_t page = 0; page < pages; page++) {
        uint64_t *words = memory + page * PAGE_WORDS;
        words[0] = page;
        words[1] = 0;
        words[2] = words[PAGE_WORDS - 1] = check_of(page, 0);
    }
    publish(&table->dirty_pages, pages);
    for (;;) {
        next += ROUND_US;
        sleep_until_us(next);
        if (now_us() > next + 1000000)
            next = now_us();
        owed += (uint64_t)options.dirty_rate * ROUND_US;
        for (; owed >= 1000000; owed -= 1000000) {
            uint64_t page = (random = mix(random + 1)) % pages;
            uint64_t *words = memory + page * PAGE_WORDS;
            uint64_t check = check_of(page, words[1]);
            if (words[0] != page || words[2] != check || words[PAGE_WORDS - 1] != check)
                publish(&table->dirty_bad, table->dirty_bad + 1);
            words[0] = page;
            words[1]++;
            words[2] = check_of(page, words[1]);
            words[3 + random % (PAGE_WORDS - 4)] = random;
            words[PAGE_WORDS - 1] = words[2];
            table->dirty_writes++;
        }
    }
}
