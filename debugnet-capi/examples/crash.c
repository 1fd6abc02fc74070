/* A kernel's crash path in C: what it sets aside at boot, and what its panic handler calls.
 * The guest of qemu-tests is the kernel: it says where its memory and its device are. */
#include "virtio_mmio.h"

/* What the kernel knows at boot. */
typedef struct {
    const char *config;
    volatile void *registers;
    uint64_t (*now_us)(void *context);
    void (*relax)(void *context);
    int32_t (*read)(void *context, uint64_t phys, uint8_t *to, size_t len);
    const debugnet_extent_t *extents;
    size_t extent_count;
} kernel_t;

/* The dump writes to all of this, so it lies where the image's volatile part is: what is
 * there is copied before it is sent. */
#define VOLATILE __attribute__((section(".volatile.c")))

VOLATILE static uint8_t memory[64 * 1024] __attribute__((aligned(16)));
VOLATILE static uint8_t rings[VIRTIO_MMIO_MEMORY_LEN] __attribute__((aligned(4096)));
VOLATILE static virtio_mmio_t driver;
VOLATILE static debugnet_nic_t nic;
VOLATILE static debugnet_machine_t machine;
VOLATILE static debugnet_image_t image;
VOLATILE static debugnet_t *armed;

/* At boot. Memory is mapped one to one, so a pointer is its physical address. `why` says
 * what is wrong if it is not 0 that comes back. */
int32_t c_arm(const kernel_t *kernel, char *why, size_t why_len);
int32_t c_arm(const kernel_t *kernel, char *why, size_t why_len)
{
    debugnet_limits_t limits = { .slots = 64, .cells = 8, .payload_len = 1448 };
    nic = virtio_mmio_nic(&driver, kernel->registers, rings, (uint64_t)(uintptr_t)rings);
    machine.now_us = kernel->now_us;
    machine.relax = kernel->relax;
    image.extents = kernel->extents;
    image.extent_count = kernel->extent_count;
    image.read = kernel->read;
    return debugnet_arm(kernel->config, &limits, memory, sizeof memory,
                        (uint64_t)(uintptr_t)memory, &armed, why, why_len);
}

/* From the panic handler: interrupts off, other CPUs stopped. */
int32_t c_dump(const char *message, debugnet_outcome_t *outcome);
int32_t c_dump(const char *message, debugnet_outcome_t *outcome)
{
    debugnet_facts_t facts = {
        .architecture = "amd64", .architecture_version = 2, .hostname = "guest",
        .version = "a kernel in C\n", .panic = message };
    debugnet_job_t job = {
        .nics = &nic, .nic_count = 1, .machine = &machine, .image = &image, .facts = &facts };
    return debugnet_dump(armed, &job, outcome);
}
