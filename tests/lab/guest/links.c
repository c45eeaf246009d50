/* SPDX-License-Identifier: Apache-2.0
 *
 * Messages between guests: to each peer one TCP connection over IPv4, one
 * over IPv6 and UDP, every one used both ways, each way a hash chain of its
 * own.  A message holds something that no second run would repeat (the cycle
 * counter), so a receiver that kept a message its sender never sent in this
 * past finds the chain broken at the next one even where TCP's numbers agree.
 */
#define _GNU_SOURCE
#include "links.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

struct link links[MAX_LINKS];
int udp_fd;
static uint64_t silence_us;

static uint64_t sum_of(const struct message *m)
{
    uint64_t sum = mix(m->previous ^ mix(m->seq ^ mix(m->nonce ^ m->from << 8 ^ m->kind)));

    for (size_t i = 0; i < (m->bytes - sizeof *m) / 8; i++)
        sum = mix(sum ^ m->payload[i]);
    return sum;
}

static void lose(struct link *l, enum state state, int error)
{
    l->counters->error = error;
    publish(&l->counters->state, state);
    close(l->fd);
    l->fd = -1;
}

static void flush_link(struct link *l)
{
    while (l->unsent) {
        ssize_t n = send(l->fd, l->outgoing + l->unsent_at, l->unsent, 0);
        if (n < 0) {
            if (errno == EAGAIN)
                l->counters->refused++;
            else
                lose(l, DEAD, errno);
            return;
        }
        l->unsent -= n;
        l->unsent_at += n;
    }
}

static void send_next(struct link *l)
{
    struct link_counters *c = l->counters;
    struct message *m = (void *)l->outgoing;

    if (c->state != UP)
        return;
    if (l->unsent)
        flush_link(l);
    if (l->unsent || c->state != UP)
        return;
    m->magic = MESSAGE_MAGIC;
    m->from = options.guest;
    m->kind = c->kind;
    m->seq = c->sent + 1;
    m->nonce = mix(cycles());
    m->bytes = sizeof *m;
    if (options.message_bytes > (int)sizeof *m)
        m->bytes += m->nonce % (options.message_bytes - sizeof *m) / 8 * 8;
    m->previous = c->kind == UDP4 ? 0 : c->sent_ring[c->sent % RING].sum;
    for (size_t i = 0; i < (m->bytes - sizeof *m) / 8; i++)
        m->payload[i] = m->nonce + i;
    m->sum = sum_of(m);

    c->sent_ring[m->seq % RING] = (struct entry){ m->seq, m->sum };
    publish(&c->sent, m->seq);                /* before it can leave */
    if (c->kind == UDP4) {
        struct sockaddr_storage address;
        socklen_t length = address_of(UDP4, c->peer, &address);
        if (sendto(udp_fd, m, m->bytes, 0, (void *)&address, length) < 0)
            c->refused++;
        return;
    }
    l->unsent = m->bytes;
    l->unsent_at = 0;
    flush_link(l);
}

static void heard(struct link *l)
{
    uint64_t now = now_us();

    if (l->heard_us) {
        uint64_t gap_us = now - l->heard_us;
        count_gap(l->counters->gaps, &l->counters->gap_max_us, gap_us);
        if (gap_us > __atomic_load_n(&silence_us, __ATOMIC_RELAXED))
            __atomic_store_n(&silence_us, gap_us, __ATOMIC_RELAXED);
    }
    l->heard_us = now;
}

static void take(struct link *l, const struct message *m)
{
    struct link_counters *c = l->counters;

    heard(l);
    c->received_ring[m->seq % RING] = (struct entry){ m->seq, m->sum };
    publish(&c->received, m->seq);
}

static void receive_stream(struct link *l)
{
    struct link_counters *c = l->counters;
    ssize_t n = recv(l->fd, l->incoming + l->filled, BUFFER - l->filled, 0);
    size_t at = 0;

    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0) {
        lose(l, DEAD, n ? errno : 0);
        return;
    }
    l->filled += n;
    while (l->filled - at >= sizeof(struct message)) {
        const struct message *m = (void *)(l->incoming + at);
        int sane = m->magic == MESSAGE_MAGIC && m->bytes >= sizeof *m &&
                   m->bytes % 8 == 0 && m->bytes <= BUFFER / 2;
        if (sane && l->filled - at < m->bytes)
            break;
        if (!sane || m->seq != c->received + 1 || m->from != c->peer || m->kind != c->kind ||
            m->previous != c->received_ring[c->received % RING].sum || m->sum != sum_of(m)) {
            publish(&c->breaks, c->breaks + 1);
            lose(l, BROKEN, 0);
            return;
        }
        take(l, m);
        at += m->bytes;
    }
    memmove(l->incoming, l->incoming + at, l->filled - at);
    l->filled -= at;
}

static void receive_datagrams(void)
{
    static uint64_t buffer[BUFFER / 8];
    ssize_t n;

    while ((n = recv(udp_fd, buffer, sizeof buffer, 0)) >= (ssize_t)sizeof(struct message)) {
        const struct message *m = (void *)buffer;
        struct link *l = m->magic == MESSAGE_MAGIC ? link_to(m->from, UDP4) : NULL;
        if (!l)
            continue;
        struct link_counters *c = l->counters;
        if (m->bytes != n || m->sum != sum_of(m)) {
            publish(&c->breaks, c->breaks + 1);
        } else if (m->seq <= c->received) {
            c->reordered++;
        } else {
            /* Until the first arrival the peer may not have listened. */
            if (c->received)
                c->lost += m->seq - c->received - 1;
            take(l, m);
        }
    }
}

int links_heard(void)
{
    for (unsigned i = 0; i < table->links; i++)
        if (!table->link[i].received)
            return 0;
    return 1;
}

uint64_t links_silence(void)
{
    return __atomic_exchange_n(&silence_us, 0, __ATOMIC_RELAXED);
}

void links_sample(void)
{
    char names[4096], values[4096];
    FILE *stat = fopen("/proc/net/netstat", "r");

    for (unsigned i = 0; i < table->links; i++) {
        struct tcp_info info;
        socklen_t length = sizeof info;
        if (links[i].fd > 0 &&
            !getsockopt(links[i].fd, IPPROTO_TCP, TCP_INFO, &info, &length))
            table->link[i].retransmits = info.tcpi_total_retrans;
    }
    while (stat && fgets(names, sizeof names, stat) && fgets(values, sizeof values, stat)) {
        char *name_at, *value_at, *name = strtok_r(names, " \n", &name_at);
        char *value = strtok_r(values, " \n", &value_at);
        for (; name && value; name = strtok_r(NULL, " \n", &name_at),
                              value = strtok_r(NULL, " \n", &value_at)) {
            uint64_t number = strtoull(value, NULL, 10);
            if (!strcmp(name, "TCPTimeouts"))
                table->tcp_timeouts = number;
            else if (!strcmp(name, "TCPLostRetransmit"))
                table->tcp_retransmits = number;
            else if (!strcmp(name, "TCPSpuriousRTOs"))
                table->tcp_spurious = number;
        }
    }
    if (stat)
        fclose(stat);
}

void *links_run(void *unused)
{
    int poller = epoll_create1(0), timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    uint64_t turn = 0, due, pace_ns;
    struct epoll_event event = { EPOLLIN, { .u32 = MAX_LINKS } }, events[16];

    (void)unused;
    epoll_ctl(poller, EPOLL_CTL_ADD, udp_fd, &event);
    for (unsigned i = 0; i < table->links; i++) {
        event.data.u32 = i;
        if (links[i].fd > 0)
            epoll_ctl(poller, EPOLL_CTL_ADD, links[i].fd, &event);
    }
    if (table->links && options.rate) {       /* one link each turn spreads the load */
        pace_ns = 1000000000ULL / ((uint64_t)options.rate * table->links);
        struct itimerspec pace = { { pace_ns / 1000000000, pace_ns % 1000000000 }, { 0, 1 } };
        timerfd_settime(timer, 0, &pace, NULL);
        event.data.u32 = MAX_LINKS + 1;
        epoll_ctl(poller, EPOLL_CTL_ADD, timer, &event);
    }
    for (;;) {
        int n = epoll_wait(poller, events, 16, -1);
        for (int i = 0; i < n; i++) {
            unsigned which = events[i].data.u32;
            if (which == MAX_LINKS) {
                receive_datagrams();
            } else if (which < MAX_LINKS) {
                if (links[which].fd > 0)
                    receive_stream(&links[which]);
            } else if (read(timer, &due, 8) == 8) {
                if (due > table->links)       /* a stall is not made good */
                    due = table->links;
                while (due--)
                    send_next(&links[turn++ % table->links]);
            }
        }
    }
}
