/* debugnet: a dying kernel's RAM, sent over FreeBSD's debugnet protocol.
 * Made from the Rust sources; a test says when it is out of date. */

#ifndef DEBUGNET_H
#define DEBUGNET_H

#include <stddef.h>
#include <stdint.h>

// Done.
#define DEBUGNET_NIC_OK 0

// Not yet: `start` only.
#define DEBUGNET_NIC_AGAIN 1

// No room now: `transmit` only. Nothing was lost.
#define DEBUGNET_NIC_FULL 2

// The device cannot fetch the payload from where it is: `transmit` only.
#define DEBUGNET_NIC_NOT_REACHABLE 3

// The frame is too long: `transmit` only.
#define DEBUGNET_NIC_TOO_LONG 4

// The device is gone.
#define DEBUGNET_NIC_GONE -1

// It did not do something in time.
#define DEBUGNET_NIC_TIMEOUT -2

// It broke its own protocol.
#define DEBUGNET_NIC_PROTOCOL -3

// It failed in another way.
#define DEBUGNET_NIC_FAILED -4

// It is not one that this driver can use.
#define DEBUGNET_NIC_UNSUPPORTED -5

// No carrier.
#define DEBUGNET_LINK_DOWN 0

// Frames can pass.
#define DEBUGNET_LINK_UP 1

// The device cannot tell; treated as up. So is any other number.
#define DEBUGNET_LINK_UNKNOWN 2

// What a call came to.
enum debugnet_status
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  // Done.
  DEBUGNET_STATUS_OK = 0,
  // A pointer is null, or not aligned, or a number is out of range.
  DEBUGNET_STATUS_BAD_ARGUMENT = -1,
  // The configuration is not understood, or cannot work. The text says why.
  DEBUGNET_STATUS_BAD_CONFIG = -2,
  // The memory is too small: `debugnet_memory_needed` says how much it takes.
  DEBUGNET_STATUS_BAD_MEMORY = -3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum debugnet_status debugnet_status;
#else
typedef int32_t debugnet_status;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// How a dump ended.
enum debugnet_verdict
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  // Every message, FINISHED included, was acknowledged.
  DEBUGNET_VERDICT_CONFIRMED = 0,
  // All of the image was acknowledged; only the ack of FINISHED is missing.
  DEBUGNET_VERDICT_UNCONFIRMED = 1,
  // It was given up.
  DEBUGNET_VERDICT_FAILED = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum debugnet_verdict debugnet_verdict;
#else
typedef int32_t debugnet_verdict;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// A configuration with its memory, waiting for the crash. Opaque.
//
// The calls borrow its fields one by one and never the whole: a dump in steps
// holds `armed`, and a fault inside a call still reads `progress`.
typedef struct debugnet_t debugnet_t;

// Sizes to choose.
typedef struct {
  // Unacknowledged messages: a power of two, 16 to 4096.
  size_t slots;
  // Cells for payloads that have to be copied, 1 to 64.
  size_t cells;
  // Bytes of a message's payload: 1448 at an MTU of 1500.
  size_t payload_len;
} debugnet_limits_t;

// What an interface can do.
typedef struct {
  // Station address.
  uint8_t mac[6];
  // Largest IP packet in bytes: 1500 on plain Ethernet.
  uint16_t ip_mtu;
  // Frames that can wait in the device at once.
  uint16_t tx_slots;
  // Payloads come by physical address (the device fetches them) instead of as bytes.
  // 0: no.
  uint8_t dma;
  // The device can insert UDP checksums. 0: no.
  uint8_t checksum;
} debugnet_capabilities_t;

// One frame to send: header, then payload.
typedef struct {
  // Ethernet header and all that follows up to the payload. Gone when `transmit` returns.
  const uint8_t *header;
  // Its length, at most 116 bytes.
  size_t header_len;
  // The payload's bytes, for a device without `dma`; null otherwise. Gone when `transmit` returns.
  const uint8_t *payload;
  // The payload's physical address, for a device with `dma`.
  uint64_t payload_phys;
  // The payload's length; may be 0.
  size_t payload_len;
  // Offset in the frame from which the device sums, to its end; 0 if it has nothing
  // to insert. The sum's complement belongs at `checksum_offset` from there, where
  // the pseudo header's sum is now.
  uint16_t checksum_start;
  // See `checksum_start`.
  uint16_t checksum_offset;
} debugnet_frame_t;

// A network interface. Every function gets `context`. None may block or wait
// longer than a millisecond; none may call back into the library.
typedef struct {
  // The driver's own.
  void *context;
  // Says what the interface can do; called after `start` said it is ready.
  void (*capabilities)(void *context, debugnet_capabilities_t *capabilities);
  // One bounded step of taking the device over: silence it, reset it, set up own
  // rings, enable it. `DEBUGNET_NIC_OK` when it runs; `DEBUGNET_NIC_AGAIN` to be called
  // again at `*until_us`, or earlier. `now_us` is the time.
  int32_t (*start)(void *context, uint64_t now_us, uint64_t *until_us);
  // The state of the cable: one of `DEBUGNET_LINK_*`.
  int32_t (*link)(void *context);
  // Queues one frame; the device need not see it before `kick`. The header is to be
  // copied; a payload by address stays as it is until `transmitted` passed the frame.
  // `DEBUGNET_NIC_FULL` changes nothing.
  int32_t (*transmit)(void *context, const debugnet_frame_t *frame);
  // Rings the doorbell for what was queued.
  void (*kick)(void *context);
  // How many frames have left the device since the machine started, in order: the
  // number of `transmit` calls that said `DEBUGNET_NIC_OK` and are done with. A reset
  // completes all. `DEBUGNET_NIC_OK`, or why the device failed.
  int32_t (*transmitted)(void *context, uint64_t *frames);
  // Copies one received frame, without FCS, to `buffer` of `len` bytes: its length,
  // 0 if none waits, `-1` for one that was dropped, less if the device failed.
  ptrdiff_t (*receive)(void *context, uint8_t *buffer, size_t len);
  // Makes the device quiet. `DEBUGNET_NIC_OK` only if it does no DMA from now on.
  int32_t (*stop)(void *context);
} debugnet_nic_t;

// What the dump needs of the machine besides NIC and memory.
typedef struct {
  // Given to each function.
  void *context;
  // Microseconds since any start. Read often; must not wait.
  uint64_t (*now_us)(void *context);
  // Waits a little, a millisecond at most: a pause instruction, or a counted delay.
  void (*relax)(void *context);
  // A sign of life, at each step and while waiting: feed the watchdog. May be null.
  void (*alive)(void *context);
  // So much of `total` bytes has been acknowledged, or was zeros and left out; at
  // most once a 64th of the image. May be null.
  void (*progress)(void *context, uint64_t done, uint64_t total);
} debugnet_machine_t;

// A run of RAM and its place in the image.
typedef struct {
  // Offset of its first byte in the image.
  uint64_t offset;
  // Physical address of its first byte.
  uint64_t phys;
  // Bytes.
  uint64_t len;
  // Not 0: the dump itself writes there (its stack, `memory`, the driver's rings), so
  // that it is copied before it is sent.
  uint8_t is_volatile;
} debugnet_extent_t;

// What is dumped.
typedef struct {
  // Given to `read`.
  void *context;
  // Extents, in the order of sending, without overlap in the image.
  const debugnet_extent_t *extents;
  // How many.
  size_t extent_count;
  // Copies `len` bytes at `phys` to `to`, without borrowing or locking anything. 0, or
  // not if they cannot be read: that part is then listed as not sent.
  int32_t (*read)(void *context, uint64_t phys, uint8_t *to, size_t len);
} debugnet_image_t;

// Facts about the machine that died. A null pointer is an empty text; what is too long is cut.
typedef struct {
  // As FreeBSD names it, at most 11 bytes: `amd64`, `aarch64`, `riscv`, `arm`.
  const char *architecture;
  // Version of the architecture's dump format: 2 for amd64, 1 for most others.
  uint32_t architecture_version;
  // Name of the machine, at most 63 bytes.
  const char *hostname;
  // Version of the kernel, at most 191 bytes.
  const char *version;
  // Why it died, at most 174 bytes.
  const char *panic;
  // Seconds since 1970 (UTC), 0 if unknown.
  uint64_t time_s;
} debugnet_facts_t;

// What to dump, and with what.
typedef struct {
  // Interfaces; a target names one by its index.
  const debugnet_nic_t *nics;
  // How many, 4 at most.
  size_t nic_count;
  // The machine.
  const debugnet_machine_t *machine;
  // The image.
  const debugnet_image_t *image;
  // Facts for the header.
  const debugnet_facts_t *facts;
} debugnet_job_t;

// What became of a dump.
typedef struct {
  // How it ended.
  debugnet_verdict verdict;
  // Bytes of the image.
  uint64_t dump_bytes;
  // Of these, acknowledged.
  uint64_t acked_bytes;
  // Of these, sent, each counted once.
  uint64_t sent_bytes;
  // Of these, zeros that were left out.
  uint64_t zero_bytes;
  // Of these, lost: given up before they were acknowledged.
  uint64_t hole_bytes;
  // Of these, not sent: unreadable, or kept out.
  uint64_t not_sent_bytes;
  // Messages sent, those sent again included.
  uint32_t transmissions;
  // Of these, sent again.
  uint32_t retransmits;
  // Time from the first step to the last, in microseconds.
  uint64_t elapsed_us;
  // Of that, from the first data sent to the last acknowledged.
  uint64_t data_us;
  // The device confirmed that it does no DMA any more. Not 0: yes.
  uint8_t nic_stopped;
} debugnet_outcome_t;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// Bytes of memory, aligned to 16, that `debugnet_arm` takes for these limits; 0 if they are out of range.
//
// # Safety
// `limits` is null or points to limits.
size_t debugnet_memory_needed(const debugnet_limits_t *limits);

// Checks configuration and memory, at boot. Touches no device, sends nothing.
//
// `config` is text: words `key=value` with blanks between, such as
// `server=192.0.2.1 client=192.0.2.9`. `memory` is `memory_len` bytes aligned
// to 16, and becomes the library's for ever; `memory_phys` is its physical
// address, all ones if it has none that a device reaches. If `error` is not
// null, a text of at most `error_len` bytes with its NUL says what is wrong.
// On success `*armed` is what the other calls take.
//
// # Safety
// The pointers are valid for what is said above. Nothing else uses `memory` from now on.
debugnet_status debugnet_arm(const char *config,
                             const debugnet_limits_t *limits,
                             uint8_t *memory,
                             size_t memory_len,
                             uint64_t memory_phys,
                             debugnet_t **armed,
                             char *error,
                             size_t error_len);

// Dumps: takes an interface over, finds a server, sends the image, makes the device
// quiet. Returns when that is over, at the configured deadline at the latest. The
// caller has switched interrupts off and stopped the other CPUs.
//
// # Safety
// `armed` comes from `debugnet_arm`, and no other call uses it meanwhile. `job` and what
// it points to stay as they are; `outcome` is null or has room for one.
debugnet_status debugnet_dump(debugnet_t *armed,
                              const debugnet_job_t *job,
                              debugnet_outcome_t *outcome);

// Begins a dump in steps to the target at this index of the configuration.
//
// # Safety
// `armed` comes from `debugnet_arm`, and no other call uses it meanwhile.
debugnet_status debugnet_begin(debugnet_t *armed, size_t target);

// One bounded step of a dump in steps: 1 if `*outcome` says how it ended, 0 to be called
// again at `*until_us` at the latest and as soon as a frame may have come; negative
// as `enum debugnet_status`. `nic` is the index of the interface that the target names.
//
// # Safety
// As `debugnet_dump`; `until_us` is null or has room for one.
int32_t debugnet_poll(debugnet_t *armed,
                      const debugnet_job_t *job,
                      size_t nic,
                      uint64_t *until_us,
                      debugnet_outcome_t *outcome);

// Bytes acknowledged so far, in units of 4 KiB: what a fault inside the dump may still
// ask. 0 for a null pointer.
//
// # Safety
// `armed` is null or comes from `debugnet_arm`.
uint64_t debugnet_progress(const debugnet_t *armed);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* DEBUGNET_H */
