//! The allocator of the whole process, librdkafka's included.
//!
//! What is kept of each file lies between the records on their way. glibc hands out what is free between them all over the heap,
//! and with 10,000 files a record took a third more CPU than with one; jemalloc keeps sizes apart
//! (docs/benchmarks/where-the-time-goes.md).

use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// One arena, as few threads allocate at the same time, and free pages given back soon, by a thread that sleeps otherwise: with
/// fewer of them more of what is allocated next is still in the caches.
/// `MALLOC_CONF` in the environment comes after it (jemalloc(3), "TUNING").
#[unsafe(export_name = "malloc_conf")]
static OPTIONS: Option<&'static u8> =
    Some(&b"narenas:1,background_thread:true,dirty_decay_ms:100,muzzy_decay_ms:0,tcache_max:4096\0"[0]);
