/* A virtio-net device behind virtio-mmio version 2, for a crash: see virtio_mmio.c. */
#ifndef VIRTIO_MMIO_H
#define VIRTIO_MMIO_H

#include <debugnet.h>

/* Bytes of memory the driver needs, aligned to 4096. */
#define VIRTIO_MMIO_MEMORY_LEN (12288 + 16 * 2048)

/* The driver. Zeroed, then filled in by virtio_mmio_nic. */
typedef struct {
    volatile uint8_t *registers;
    uint8_t *memory;
    uint64_t memory_phys;
    uint8_t mac[6];
    uint16_t tx_avail, tx_used, rx_avail, rx_used;
    /* Frames that have left since the machine started. */
    uint64_t left;
    int32_t running;
} virtio_mmio_t;

/* A table over the device at `registers`, which works in `memory` (at `memory_phys` for
 * the device). Touches nothing. All of it has to stay for ever. */
debugnet_nic_t virtio_mmio_nic(virtio_mmio_t *driver, volatile void *registers, void *memory,
                               uint64_t memory_phys);

#endif
