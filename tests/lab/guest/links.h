/* SPDX-License-Identifier: Apache-2.0
 *
 * What making connections (connect.c) and using them (links.c) share.
 */
#ifndef LINKS_H
#define LINKS_H

#include "workload.h"

#include <stddef.h>
#include <sys/socket.h>

#define MESSAGE_MAGIC 0x4d42414cu             /* "LABM" */
#define BUFFER 65536

struct message {
    uint32_t magic, bytes;
    uint32_t from, kind;
    uint64_t seq, nonce, previous, sum;
    uint64_t payload[];
};

struct link {
    struct link_counters *counters;
    int fd;
    uint64_t heard_us;
    size_t filled, unsent, unsent_at;
    uint8_t incoming[BUFFER], outgoing[BUFFER];
};

extern struct link links[MAX_LINKS];
extern int udp_fd;

struct link *link_to(unsigned peer, unsigned kind);
socklen_t address_of(int kind, int guest, struct sockaddr_storage *address);

#endif
