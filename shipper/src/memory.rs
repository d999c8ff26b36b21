//! Memory that a start leaves behind.

use std::time::Duration;

/// Decides when memory is given back to the system. Pure.
#[derive(Debug, Default)]
pub struct GiveBacks {
    /// Monotonic.
    due: Option<Duration>,
}

impl GiveBacks {
    /// Until then files of a start that are quiet are known to be.
    const FIRST_AFTER: Duration = Duration::from_secs(20);
    /// What is needed again costs some milliseconds.
    const EVERY: Duration = Duration::from_secs(60);

    /// To be asked while nothing is on its way. Once it says yes, the memory should be given back.
    pub fn is_time(&mut self, now: Duration) -> bool {
        let due = *self.due.get_or_insert(now + Self::FIRST_AFTER);
        let is_time = now >= due;
        if is_time {
            self.due = Some(now + Self::EVERY);
        }
        is_time
    }
}

/// Gives back the pages of programs and libraries, most of which only a start needs. They stay in the page cache, and those
/// that are touched again are mapped again (`madvise(2)`, `MADV_DONTNEED`). Of free memory the allocator sees to it itself.
#[cfg(target_env = "gnu")]
pub fn give_back() {
    // SAFETY: it may be called at any time, from any thread; the callback has the signature that is asked for.
    unsafe { libc::dl_iterate_phdr(Some(unmap_read_only), std::ptr::null_mut()) };
}

#[cfg(not(target_env = "gnu"))]
pub fn give_back() {}

/// Unmaps the pages of an object's segments that nobody can have written to.
#[cfg(target_env = "gnu")]
unsafe extern "C" fn unmap_read_only(info: *mut libc::dl_phdr_info, _: usize, _: *mut libc::c_void) -> libc::c_int {
    let page = rustix::param::page_size();
    // SAFETY: the object and its headers stay during the call (`dl_iterate_phdr(3)`).
    let (base, headers) = unsafe {
        let info = &*info;
        (info.dlpi_addr as usize, std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()))
    };
    for header in headers.iter().filter(|header| header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0) {
        let start = (base + header.p_vaddr as usize).next_multiple_of(page);
        let end = (base + header.p_vaddr as usize + header.p_filesz as usize) / page * page;
        if start < end {
            // SAFETY: what is mapped there is a file that cannot be written while it runs, or the kernel's own object, and no page
            // differs from it but for a debugger's breakpoints.
            unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED) };
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_back_after_the_start_and_every_minute_at_rest() {
        let mut give_backs = GiveBacks::default();
        let at = Duration::from_secs;
        assert!(!give_backs.is_time(at(100)) && !give_backs.is_time(at(119)));
        assert!(give_backs.is_time(at(120)));
        assert!(!give_backs.is_time(at(179)));
        assert!(give_backs.is_time(at(500)) && !give_backs.is_time(at(559)));
    }
}
