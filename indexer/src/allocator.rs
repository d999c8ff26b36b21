//! The allocator of the whole process, librdkafka's included.
//!
//! librdkafka's threads allocate the messages that the owner frees: in glibc's arenas each waits for the other, up to milliseconds
//! where a thread that holds the lock is preempted. With jemalloc a record takes a tenth less CPU, and a third more records pass
//! through (docs/benchmarks/where-the-time-goes.md).

use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// So many arenas whatever the number of cores, and free pages given back soon: a container's limit counts what is resident.
/// `MALLOC_CONF` in the environment comes after it (jemalloc(3), "TUNING").
#[unsafe(export_name = "malloc_conf")]
static OPTIONS: Option<&'static u8> = Some(&b"narenas:8,dirty_decay_ms:100,muzzy_decay_ms:0,tcache_max:4096\0"[0]);
