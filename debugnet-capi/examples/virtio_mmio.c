/* A whole network driver for a dying kernel in C: virtio-net behind virtio-mmio version 2
 * (virtio 1.2, sections 4.2 and 5.1). It takes the device over by reset, with rings of its
 * own, and polls. The payload is fetched by the device from where it lies.
 *
 * The guest of qemu-tests links it, crashes, and sends its memory with it. */
#include "virtio_mmio.h"

/* Registers (4.2.2). */
enum {
    MAGIC = 0x00, VERSION = 0x04, DEVICE = 0x08,
    DEVICE_FEATURES = 0x10, DEVICE_FEATURES_SEL = 0x14,
    DRIVER_FEATURES = 0x20, DRIVER_FEATURES_SEL = 0x24,
    QUEUE_SEL = 0x30, QUEUE_SIZE_MAX = 0x34, QUEUE_SIZE = 0x38, QUEUE_READY = 0x44,
    QUEUE_NOTIFY = 0x50, STATUS = 0x70,
    QUEUE_DESC = 0x80, QUEUE_DRIVER = 0x90, QUEUE_DEVICE = 0xa0, CONFIG = 0x100
};
enum { ACKNOWLEDGE = 1, DRIVER = 2, DRIVER_OK = 4, FEATURES_OK = 8 };
enum { F_MAC = 1 << 5 };              /* of the low word */
enum { F_VERSION_1 = 1 << 0 };        /* of the high word */
enum { RX = 0, TX = 1 };
enum { DESC_NEXT = 1, DESC_WRITE = 2 };

/* Where things lie in the driver's memory. */
enum {
    QUEUE_LEN = 64, FRAMES = QUEUE_LEN / 2, RX_BUFFERS = 16, RX_BUFFER_LEN = 2048,
    DESC = 0, AVAIL = 1024, USED = 2048, QUEUE_BYTES = 4096,
    CELLS = 2 * QUEUE_BYTES, CELL_LEN = 128, BUFFERS = CELLS + FRAMES * CELL_LEN,
    /* With a VLAN tag. */
    NET_HEADER_LEN = 12, FRAME_MAX = 1518
};

typedef struct { uint64_t at; uint32_t len; uint16_t flags, next; } desc_t;
typedef struct { uint16_t flags, idx, ring[QUEUE_LEN]; } avail_t;
typedef struct { uint16_t flags, idx; struct { uint32_t id, len; } ring[QUEUE_LEN]; } used_t;

static uint32_t get(virtio_mmio_t *nic, unsigned at)
{
    return *(volatile uint32_t *)(nic->registers + at);
}

static void set(virtio_mmio_t *nic, unsigned at, uint32_t value)
{
    *(volatile uint32_t *)(nic->registers + at) = value;
}

static void *part(virtio_mmio_t *nic, unsigned queue, unsigned offset)
{
    return nic->memory + queue * QUEUE_BYTES + offset;
}

/* What was written before is seen before what is written after, by the device too. */
static void barrier(void)
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

static void queue(virtio_mmio_t *nic, unsigned number)
{
    static const struct { unsigned reg, offset; } parts[] = {
        { QUEUE_DESC, DESC }, { QUEUE_DRIVER, AVAIL }, { QUEUE_DEVICE, USED } };
    set(nic, QUEUE_SEL, number);
    set(nic, QUEUE_SIZE, QUEUE_LEN);
    for (unsigned i = 0; i < 3; i++) {
        uint64_t at = nic->memory_phys + number * QUEUE_BYTES + parts[i].offset;
        set(nic, parts[i].reg, (uint32_t)at);
        set(nic, parts[i].reg + 4, (uint32_t)(at >> 32));
    }
    set(nic, QUEUE_READY, 1);
}

/* Gives buffer `index` to the device. */
static void give(virtio_mmio_t *nic, unsigned index)
{
    volatile desc_t *desc = part(nic, RX, DESC);
    volatile avail_t *avail = part(nic, RX, AVAIL);
    desc[index].at = nic->memory_phys + BUFFERS + index * RX_BUFFER_LEN;
    desc[index].len = RX_BUFFER_LEN;
    desc[index].flags = DESC_WRITE;
    avail->ring[nic->rx_avail % QUEUE_LEN] = (uint16_t)index;
    barrier();
    avail->idx = ++nic->rx_avail;
}

static int32_t start(void *context, uint64_t now_us, uint64_t *until_us)
{
    virtio_mmio_t *nic = context;
    (void)now_us;
    (void)until_us;
    if (get(nic, MAGIC) != 0x74726976 || get(nic, VERSION) != 2 || get(nic, DEVICE) != 1)
        return DEBUGNET_NIC_UNSUPPORTED;

    /* Whatever the dead kernel's rings were, the device forgets them. */
    set(nic, STATUS, 0);
    unsigned looks = 0;
    while (get(nic, STATUS) != 0)
        if (++looks == 10000)
            return DEBUGNET_NIC_TIMEOUT;
    set(nic, STATUS, ACKNOWLEDGE);
    set(nic, STATUS, ACKNOWLEDGE | DRIVER);

    set(nic, DEVICE_FEATURES_SEL, 1);
    if (!(get(nic, DEVICE_FEATURES) & F_VERSION_1))
        return DEBUGNET_NIC_UNSUPPORTED;
    set(nic, DEVICE_FEATURES_SEL, 0);
    if (!(get(nic, DEVICE_FEATURES) & F_MAC))
        return DEBUGNET_NIC_UNSUPPORTED;
    set(nic, DRIVER_FEATURES_SEL, 0);
    set(nic, DRIVER_FEATURES, F_MAC);
    set(nic, DRIVER_FEATURES_SEL, 1);
    set(nic, DRIVER_FEATURES, F_VERSION_1);
    set(nic, STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK);
    if (!(get(nic, STATUS) & FEATURES_OK))
        return DEBUGNET_NIC_UNSUPPORTED;
    for (unsigned i = 0; i < 6; i++)
        nic->mac[i] = nic->registers[CONFIG + i];

    for (unsigned i = 0; i < BUFFERS; i++)
        ((volatile uint8_t *)nic->memory)[i] = 0;
    /* A reset completes all. */
    nic->left += (uint16_t)(nic->tx_avail - nic->tx_used);
    nic->tx_avail = nic->tx_used = nic->rx_avail = nic->rx_used = 0;
    for (unsigned number = RX; number <= TX; number++) {
        set(nic, QUEUE_SEL, number);
        if (get(nic, QUEUE_SIZE_MAX) < QUEUE_LEN)
            return DEBUGNET_NIC_UNSUPPORTED;
        queue(nic, number);
    }
    for (unsigned index = 0; index < RX_BUFFERS; index++)
        give(nic, index);
    barrier();
    set(nic, STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
    set(nic, QUEUE_NOTIFY, RX);
    nic->running = 1;
    return DEBUGNET_NIC_OK;
}

static void capabilities(void *context, debugnet_capabilities_t *told)
{
    virtio_mmio_t *nic = context;
    for (unsigned i = 0; i < 6; i++)
        told->mac[i] = nic->mac[i];
    told->ip_mtu = 1500;
    told->tx_slots = FRAMES;
    told->dma = 1;
    told->checksum = 0;
}

static int32_t link(void *context)
{
    (void)context;
    return DEBUGNET_LINK_UNKNOWN;
}

/* Frame k has descriptors 2k and 2k+1, and header cell k, for ever. */
static int32_t transmit(void *context, const debugnet_frame_t *frame)
{
    virtio_mmio_t *nic = context;
    unsigned k = nic->tx_avail % FRAMES;
    volatile desc_t *desc = part(nic, TX, DESC);
    volatile avail_t *avail = part(nic, TX, AVAIL);
    volatile uint8_t *cell = nic->memory + CELLS + k * CELL_LEN;

    if ((uint16_t)(nic->tx_avail - nic->tx_used) == FRAMES)
        return DEBUGNET_NIC_FULL;
    if (frame->header_len > CELL_LEN - NET_HEADER_LEN ||
        frame->payload_len > FRAME_MAX - frame->header_len)
        return DEBUGNET_NIC_TOO_LONG;
    for (unsigned i = 0; i < NET_HEADER_LEN; i++)
        cell[i] = 0;
    for (unsigned i = 0; i < frame->header_len; i++)
        cell[NET_HEADER_LEN + i] = frame->header[i];
    desc[2 * k].at = nic->memory_phys + CELLS + k * CELL_LEN;
    desc[2 * k].len = (uint32_t)(NET_HEADER_LEN + frame->header_len);
    desc[2 * k].flags = frame->payload_len ? DESC_NEXT : 0;
    desc[2 * k].next = (uint16_t)(2 * k + 1);
    desc[2 * k + 1].at = frame->payload_phys;
    desc[2 * k + 1].len = (uint32_t)frame->payload_len;
    desc[2 * k + 1].flags = 0;
    avail->ring[nic->tx_avail % QUEUE_LEN] = (uint16_t)(2 * k);
    nic->tx_avail++;
    return DEBUGNET_NIC_OK;
}

static void kick(void *context)
{
    virtio_mmio_t *nic = context;
    volatile avail_t *avail = part(nic, TX, AVAIL);
    if (!nic->running)
        return;
    barrier();
    avail->idx = nic->tx_avail;
    barrier();
    set(nic, QUEUE_NOTIFY, TX);
}

/* This device completes in order (QEMU's does); one that does not would have to be counted
 * by the ids in the used ring. */
static int32_t transmitted(void *context, uint64_t *frames)
{
    virtio_mmio_t *nic = context;
    volatile used_t *used = part(nic, TX, USED);
    uint16_t done = (uint16_t)(used->idx - nic->tx_used);
    if (done > (uint16_t)(nic->tx_avail - nic->tx_used))
        return DEBUGNET_NIC_PROTOCOL;
    barrier();
    nic->tx_used = (uint16_t)(nic->tx_used + done);
    nic->left += done;
    *frames = nic->left;
    return DEBUGNET_NIC_OK;
}

static ptrdiff_t receive(void *context, uint8_t *buffer, size_t len)
{
    virtio_mmio_t *nic = context;
    volatile used_t *used = part(nic, RX, USED);
    if (used->idx == nic->rx_used)
        return 0;
    barrier();
    uint32_t id = used->ring[nic->rx_used % QUEUE_LEN].id;
    uint32_t whole = used->ring[nic->rx_used % QUEUE_LEN].len;
    nic->rx_used++;
    /* The device's word is no index of ours before it is looked at. */
    if (id >= RX_BUFFERS)
        return -2;
    ptrdiff_t got = -1;
    if (whole > NET_HEADER_LEN && whole <= RX_BUFFER_LEN && whole - NET_HEADER_LEN <= len) {
        volatile uint8_t *from = nic->memory + BUFFERS + id * RX_BUFFER_LEN + NET_HEADER_LEN;
        got = (ptrdiff_t)(whole - NET_HEADER_LEN);
        for (ptrdiff_t i = 0; i < got; i++)
            buffer[i] = from[i];
    }
    give(nic, id);
    set(nic, QUEUE_NOTIFY, RX);
    return got;
}

static int32_t stop(void *context)
{
    virtio_mmio_t *nic = context;
    unsigned looks = 0;
    set(nic, STATUS, 0);
    while (get(nic, STATUS) != 0)
        if (++looks == 10000)
            return DEBUGNET_NIC_TIMEOUT;
    /* A reset completes all. */
    nic->left += (uint16_t)(nic->tx_avail - nic->tx_used);
    nic->tx_used = nic->tx_avail;
    nic->running = 0;
    return DEBUGNET_NIC_OK;
}

debugnet_nic_t virtio_mmio_nic(virtio_mmio_t *driver, volatile void *registers, void *memory,
                               uint64_t memory_phys)
{
    driver->registers = registers;
    driver->memory = memory;
    driver->memory_phys = memory_phys;
    debugnet_nic_t nic = {
        .context = driver, .capabilities = capabilities, .start = start, .link = link,
        .transmit = transmit, .kick = kick, .transmitted = transmitted, .receive = receive,
        .stop = stop };
    return nic;
}
