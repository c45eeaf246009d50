// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/* Keeps back what a guest sends, or is sent, at its network device, in the host's kernel.
 *
 * A gate is one copy of these programs with its maps, and a word for each of two ways, outward
 * and inward, that says what to do: a state and, below it, a time. Whoever writes a word closes
 * or releases that way at all NICs of the gate at once. Nothing else has to happen, and nobody
 * of ours has to be alive, for packets to flow again when the time is up.
 *
 *   guest ──► NIC ──► from_guest ──┬─ open ──► the network
 *                         ▲        └─ held ──► into_holding ──► holding device, a queue
 *                         └── marked ── put_back ◄── holding device ◄── the holder reads, writes
 *
 * `from_guest` runs where the guest's packets come into the host: at a tap's ingress, at a
 * macvtap's egress. The holding device is a tap of ours, one a NIC and way. Its process, the
 * holder, reads it when the way is released and writes each frame to it again; `put_back` sends
 * that to the NIC, with a mark of the host's, and `from_guest` lets it go on its way. `to_guest`
 * is the same for the way inward, at the other side of the device.
 *
 * A gate without a code point holds all that its guest sends (gate `hold`), and has no `to_guest`.
 * With one (gate `marker`) what goes straight from member to member is not held: it carries the
 * code point instead, in its DSCP, and an armed gate that meets it closes the way inward by
 * itself, behind the last packet that its guest may have before its cut.
 *
 * Order: from the release on a packet waits behind those held as long as any of them is
 * outstanding, held and not seen again, and for SETTLE_NS after the last: that one may still be
 * on its way to the wire on another processor.
 *
 * What is used, and the first kernel that has it: direct action (4.4), bpf_redirect (4.2),
 * bpf_ktime_get_boot_ns (5.8), array maps that can be mmapped (5.5), atomic addition (3.19),
 * compare and exchange (5.12); and what marks.bpf.h says.
 */
#include <stdbool.h>

#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

#include "marks.bpf.h"

#define GO_ON TC_ACT_UNSPEC /* whoever has a filter behind ours has his say */

/* A word. User space writes it: word.py. */
#define STATE_SHIFT 62
#define TIME_MASK ((1ULL << STATE_SHIFT) - 1)
enum state {
	OPEN = 0,      /* everything passes */
	ARMED = 1,     /* likewise; before the cut. Inward, a mark changes it to CLOSED */
	CLOSED = 2,    /* all is held until the time, which is the end of the lease; then it passes */
	RELEASING = 3, /* what comes waits behind what is held, until the time at the latest */
};

#define SETTLE_NS 20000ULL
/* A lease that has ended leaves the holder, if there is one, so long to keep the order. */
#define GRACE_NS 20000000ULL

/* On skb->mark, which no guest can set: to the holding device, and back from it, by its way. */
#define MARK_HELD 0x68734801
#define MARK_BACK 0x68734802
enum way { OUTWARD = 0, INWARD = 1 };

struct gate {
	struct {
		__u64 word;
		__u64 lapsed; /* packets that came when the lease had ended: it opened by itself */
	} ways[2];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct gate);
} gates SEC(".maps");

struct place {
	__u32 nic; /* an ifindex */
	__u32 way;
};

struct nic {
	__u32 holding; /* its holding device, an ifindex */
	__u32 pad;
	__u64 limit_packets, limit_bytes;
	__u64 held, held_bytes;           /* put aside, all in all */
	__u64 delivered, delivered_bytes; /* seen again and let through */
	__u64 overflow;                   /* dropped, for a limit was reached */
	__u64 last_back_ns;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 512);
	__type(key, struct place);
	__type(value, struct nic);
} nics SEC(".maps");

struct way_back {
	__u32 nic;
	__u32 redirect_flags; /* BPF_F_INGRESS where the way's packets come by the NIC's ingress */
	__u32 mark;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 512);
	__type(key, __u32); /* the holding device's ifindex */
	__type(value, struct way_back);
} ways_back SEC(".maps");

/* --- held, and put back --- */

static __always_inline __s64 outstanding(const struct nic *nic)
{
	return (__s64)(nic->held - nic->delivered);
}

static __always_inline bool full(const struct nic *nic)
{
	return outstanding(nic) >= (__s64)nic->limit_packets ||
	       (__s64)(nic->held_bytes - nic->delivered_bytes) >= (__s64)nic->limit_bytes;
}

static __always_inline int hold(struct __sk_buff *skb, struct nic *nic)
{
	__sync_fetch_and_add(&nic->held, 1);
	__sync_fetch_and_add(&nic->held_bytes, skb->len);
	skb->mark = MARK_HELD;
	return bpf_redirect(nic->holding, 0);
}

static __always_inline int came_back(struct __sk_buff *skb, struct nic *nic, __u64 now)
{
	skb->mark = 0;
	nic->last_back_ns = now;
	__sync_fetch_and_add(&nic->delivered, 1);
	__sync_fetch_and_add(&nic->delivered_bytes, skb->len);
	return GO_ON;
}

/* The way is closed or releasing: the packet is held, dropped, or goes on. */
static __always_inline int wait(struct __sk_buff *skb, struct gate *gate, enum way way,
				struct nic *nic, __u64 word, __u64 now)
{
	__u64 until = word & TIME_MASK;
	if (word >> STATE_SHIFT == CLOSED) {
		if (now < until) {
			if (!full(nic))
				return hold(skb, nic);
			__sync_fetch_and_add(&nic->overflow, 1);
			return TC_ACT_SHOT;
		}
		__sync_fetch_and_add(&gate->ways[way].lapsed, 1);
		until += GRACE_NS;
	}
	/* Releasing, by somebody's word or by the clock's. Too late in the queue, or too many in
	 * it: rather out of order than lost. */
	if (now < until && !full(nic) &&
	    (outstanding(nic) > 0 || now < nic->last_back_ns + SETTLE_NS))
		return hold(skb, nic);
	return GO_ON;
}

/* --- the programs --- */

SEC("tc") int from_guest(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct gate *gate = bpf_map_lookup_elem(&gates, &zero);
	if (!gate)
		return GO_ON;
	/* One load: state and time belong together. */
	__u64 word = *(volatile __u64 *)&gate->ways[OUTWARD].word;
	enum state state = word >> STATE_SHIFT;
	bool back = skb->mark == MARK_BACK + OUTWARD;
	if (!back && (state == OPEN || state == ARMED))
		return GO_ON;
	struct place here = {.nic = skb->ifindex, .way = OUTWARD};
	struct nic *nic = bpf_map_lookup_elem(&nics, &here);
	struct marker *marker = bpf_map_lookup_elem(&markers, &zero);
	if (!nic || !marker)
		return GO_ON;
	__u64 now = bpf_ktime_get_boot_ns();
	if (back)
		return came_back(skb, nic, now);
	if (marker->code && !skb->vlan_present && dscp_of(skb) == 0 && between_members(skb)) {
		if (state == CLOSED && now < (word & TIME_MASK)) {
			set_dscp(skb, marker->code);
			__sync_fetch_and_add(&marker->marked, 1);
		} else if (state == CLOSED) {
			__sync_fetch_and_add(&gate->ways[OUTWARD].lapsed, 1);
		}
		return GO_ON;
	}
	return wait(skb, gate, OUTWARD, nic, word, now);
}

SEC("tc") int to_guest(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct gate *gate = bpf_map_lookup_elem(&gates, &zero);
	struct marker *marker = bpf_map_lookup_elem(&markers, &zero);
	if (!gate || !marker)
		return GO_ON;
	bool back = skb->mark == MARK_BACK + INWARD;
	int code = back ? 0 : dscp_of(skb);
	bool marked = code > 0 && marker->codes >> (code & 63) & 1 && between_members(skb);
	if (marked) {
		set_dscp(skb, 0);
		__sync_fetch_and_add(&marker->stripped, 1);
	}
	volatile __u64 *at = &gate->ways[INWARD].word;
	__u64 word = *at;
	enum state state = word >> STATE_SHIFT;
	bool asks = state == ARMED && marked && (__u64)code == marker->code;
	if (!back && !asks && (state == OPEN || state == ARMED))
		return GO_ON;
	struct place here = {.nic = skb->ifindex, .way = INWARD};
	struct nic *nic = bpf_map_lookup_elem(&nics, &here);
	if (!nic)
		return GO_ON;
	__u64 now = bpf_ktime_get_boot_ns();
	if (back)
		return came_back(skb, nic, now);
	if (asks) {
		__u64 closed = (__u64)CLOSED << STATE_SHIFT | (now + marker->wait_ns);
		/* Unless the cut, or another packet on another processor, was first. */
		if (__sync_val_compare_and_swap(&gate->ways[INWARD].word, word, closed) == word)
			__sync_fetch_and_add(&marker->asked, 1);
		word = *at;
	}
	return wait(skb, gate, INWARD, nic, word, now);
}

/* The holding device's egress: nothing but what is held, whatever the host sends by itself. */
SEC("tc") int into_holding(struct __sk_buff *skb)
{
	return skb->mark == MARK_HELD ? GO_ON : TC_ACT_SHOT;
}

/* The holding device's ingress: what its holder writes. */
SEC("tc") int put_back(struct __sk_buff *skb)
{
	__u32 ifindex = skb->ifindex;
	struct way_back *way = bpf_map_lookup_elem(&ways_back, &ifindex);
	if (!way)
		return TC_ACT_SHOT;
	skb->mark = way->mark;
	return bpf_redirect(way->nic, way->redirect_flags);
}

char _license[] SEC("license") = "GPL";
