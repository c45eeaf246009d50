/* SPDX-License-Identifier: Apache-2.0
 *
 * Connect each pair of guests once, at the start, and never again: a reset is
 * a failure to record, not to repair.
 */
#define _GNU_SOURCE
#include "links.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

socklen_t address_of(int kind, int guest, struct sockaddr_storage *address)
{
    const char *formats[] = { options.address4, options.address6, options.address_udp };
    char text[64];

    memset(address, 0, sizeof *address);
    snprintf(text, sizeof text, formats[kind], guest + 1);
    if (kind == TCP6) {
        struct sockaddr_in6 *in6 = (void *)address;
        in6->sin6_family = AF_INET6;
        in6->sin6_port = htons(options.base_port + guest);
        if (inet_pton(AF_INET6, text, &in6->sin6_addr) != 1)
            die(text);
        return sizeof *in6;
    }
    struct sockaddr_in *in = (void *)address;
    in->sin_family = AF_INET;
    in->sin_port = htons(options.base_port + guest);
    if (inet_pton(AF_INET, text, &in->sin_addr) != 1)
        die(text);
    return sizeof *in;
}

static int bound(int kind)
{
    struct sockaddr_storage address;
    socklen_t length = address_of(kind, options.guest, &address);
    int one = 1, fd;

    fd = socket(address.ss_family, kind == UDP4 ? SOCK_DGRAM : SOCK_STREAM, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (fd < 0 || bind(fd, (void *)&address, length))
        die("bind");
    if (kind != UDP4 && listen(fd, MAX_LINKS))
        die("listen");
    return fd;
}

struct link *link_to(unsigned peer, unsigned kind)
{
    for (unsigned i = 0; i < table->links; i++)
        if (table->link[i].peer == peer && table->link[i].kind == kind)
            return &links[i];
    return NULL;
}

static void came_up(struct link *l, int fd)
{
    int one = 1, idle = 10, interval = 5, count = 6;

    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    l->fd = fd;
    publish(&l->counters->state, UP);
}

static void call(struct link *l)
{
    struct link_counters *c = l->counters;
    uint32_t hello[4] = { MESSAGE_MAGIC, options.guest, c->kind, 0 };
    struct timeval patience = { 1, 0 };

    for (;;) {
        struct sockaddr_storage address;
        socklen_t length = address_of(c->kind, c->peer, &address);
        int fd = socket(address.ss_family, SOCK_STREAM, 0);
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
        if (!connect(fd, (void *)&address, length) &&
            write(fd, hello, sizeof hello) == sizeof hello) {
            came_up(l, fd);
            return;
        }
        close(fd);
        sleep_until_us(now_us() + 100000);
    }
}

static void answer(int listener)
{
    uint32_t hello[4];
    int fd = accept(listener, NULL, NULL);

    if (fd < 0 || recv(fd, hello, sizeof hello, MSG_WAITALL) != sizeof hello ||
        hello[0] != MESSAGE_MAGIC) {
        close(fd);
        return;
    }
    struct link *l = link_to(hello[1], hello[2]);
    if (!l || l->fd > 0)
        close(fd);
    else
        came_up(l, fd);
}

void links_connect(void)
{
    int listeners[2] = { bound(TCP4), bound(TCP6) }, waiting = 0;
    struct pollfd polled[2] = { { listeners[0], POLLIN, 0 }, { listeners[1], POLLIN, 0 } };
    unsigned count = 0;

    udp_fd = bound(UDP4);
    fcntl(udp_fd, F_SETFL, O_NONBLOCK);
    for (int peer = 0; peer < options.guests; peer++)
        for (int kind = 0; kind < KINDS && peer != options.guest; kind++) {
            if (count == MAX_LINKS)
                die("too many guests");
            struct link_counters *c = &table->link[count];
            c->peer = peer;
            c->kind = kind;
            c->state = kind == UDP4 ? UP : WAITING;
            links[count++].counters = c;
        }
    publish(&table->links, count);

    /* The lower number calls over IPv4, the higher over IPv6: who called whom
     * must not matter.  A listener's queue takes calls nobody answers yet. */
    for (unsigned i = 0; i < count; i++) {
        struct link_counters *c = &table->link[i];
        int lower = options.guest < (int)c->peer;
        if (c->kind == UDP4)
            continue;
        if ((c->kind == TCP4) == lower)
            call(&links[i]);
        else
            waiting++;
    }
    while (waiting) {
        poll(polled, 2, -1);
        for (int i = 0; i < 2; i++)
            if (polled[i].revents)
                answer(listeners[i]);
        waiting = 0;
        for (unsigned i = 0; i < count; i++)
            waiting += table->link[i].state == WAITING;
    }
}
