/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Marks: a code point that an IP packet between members has in its DSCP, which was 0.
 *
 * Who sees a mark has a packet that was sent after a cut. It is put on, looked for and taken off
 * by one and the same test of who sent the packet to whom, so that what one gate marks no other
 * gate takes for anything else.
 *
 * What is used, and the first kernel that has it: bpf_skb_load_bytes (4.5),
 * bpf_skb_store_bytes and bpf_l3_csum_replace (4.1), hash maps without preallocation (4.6).
 */
#ifndef HOTSNAP_MARKS
#define HOTSNAP_MARKS

#include <stdbool.h>

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

struct marker {
	__u64 codes;   /* every code point that a mark may have, a bit each: these are stripped */
	__u64 wait_ns; /* the lease that a mark begins at an armed member */
	__u64 code;    /* this epoch's; 0: nothing is marked */
	__u64 marked, stripped, asked; /* packets; `asked`: a mark closed the way inward */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct marker);
} markers SEC(".maps");

struct address {
	__u8 mac[6];
	__u16 family; /* 4 or 6; 0: the MAC alone */
	__u8 ip[16];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC); /* written while nothing is hooked in yet */
	__uint(max_entries, 4096);
	__type(key, struct address);
	__type(value, __u32);
} members SEC(".maps");

/* The packet's DSCP, or -1 where it has none. A single VLAN tag is beside the packet. */
static __always_inline int dscp_of(struct __sk_buff *skb)
{
	__u16 word;
	if (skb->protocol != bpf_htons(ETH_P_IP) && skb->protocol != bpf_htons(ETH_P_IPV6))
		return -1;
	if (bpf_skb_load_bytes(skb, ETH_HLEN, &word, 2))
		return -1;
	word = bpf_ntohs(word);
	if (skb->protocol == bpf_htons(ETH_P_IP))
		return word >> 12 == 4 ? (word & 0xff) >> 2 : -1;
	return word >> 12 == 6 ? (word & 0xfff) >> 6 : -1;
}

/* No checksum but IPv4's own covers the DSCP. Where a device has summed up the whole packet,
 * IPv4's two changes cancel each other out, and IPv6's one has to be told. */
static __always_inline void set_dscp(struct __sk_buff *skb, __u8 code)
{
	__u16 before, after;
	if (bpf_skb_load_bytes(skb, ETH_HLEN, &before, 2))
		return;
	after = bpf_ntohs(before);
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		after = bpf_htons((after & 0xff03) | code << 2);
		bpf_l3_csum_replace(skb, ETH_HLEN + 10, before, after, 2);
		bpf_skb_store_bytes(skb, ETH_HLEN, &after, 2, 0);
	} else {
		after = bpf_htons((after & 0xf03f) | code << 6);
		bpf_skb_store_bytes(skb, ETH_HLEN, &after, 2, BPF_F_RECOMPUTE_CSUM);
	}
}

/* Whether an IP packet goes from a member straight to another's own address: nobody but that
 * one is to receive it, and no router or balancer has a say. */
static __always_inline bool between_members(struct __sk_buff *skb)
{
	struct address source = {}, target = {};
	if (bpf_skb_load_bytes(skb, 6, source.mac, 6) || !bpf_map_lookup_elem(&members, &source) ||
	    bpf_skb_load_bytes(skb, 0, target.mac, 6))
		return false;
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		target.family = 4;
		if (bpf_skb_load_bytes(skb, ETH_HLEN + 16, target.ip, 4))
			return false;
	} else {
		target.family = 6;
		if (bpf_skb_load_bytes(skb, ETH_HLEN + 24, target.ip, 16))
			return false;
	}
	return bpf_map_lookup_elem(&members, &target);
}

#endif
