/* SPDX-License-Identifier: Apache-2.0
 *
 * A guest in a boot sector: at each fourth tick of the timer, some five times a second, it counts
 * in memory and writes the same to its disk, for which the BIOS spins. A key that is pressed
 * becomes its mark, which says of memory and disk from which time they are.
 *
 * The page at PAGE, and the disk's second sector, which it is read from when the guest boots:
 *     0  8  magic
 *     8  4  ticks; on the disk this or one less
 *    12  1  mark
 *    13  1  transfers that failed
 *    14  1  boots
 */
    .code16
    .globl _start
    .equ PAGE, 0x9000
_start:
    cli
    xor %ax, %ax
    mov %ax, %ds
    mov %ax, %es
    mov %ax, %ss
    mov $0x7c00, %sp
    sti
    mov %dl, drive
    mov $0x42, %ah
    call transfer
    incb PAGE + 14
tick:
    hlt
    mov $0x01, %ah
    int $0x16
    jz count
    xor %ah, %ah
    int $0x16
    mov %al, PAGE + 12
count:
    incb ticks
    testb $3, ticks
    jnz tick
    incl PAGE + 8
    mov $0x43, %ah
    call transfer
    jmp tick

/* One sector between PAGE and the disk; %ah has the BIOS's word for the direction. */
transfer:
    xor %al, %al
    mov $packet, %si
    mov drive, %dl
    int $0x13
    jnc 1f
    incb PAGE + 13
1:  ret

drive:
    .byte 0
ticks:
    .byte 0
    .balign 4
packet:
    .byte 16, 0
    .word 1                 /* sectors */
    .word PAGE, 0           /* offset, segment */
    .quad 1                 /* from this one on */
    .org 446                /* one partition: Nova takes no boot sector without */
    .byte 0x80, 0, 2, 0, 0x83, 0, 0, 0
    .long 1, 2047
    .org 510
    .word 0xaa55
