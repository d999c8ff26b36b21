//! What every Prometheus client tells of its own process, under the usual names.

use std::fs;

use super::Gauges;

/// Adds `process_*` as of now. What the kernel does not tell is left out.
pub(super) fn add(series: &mut Gauges) {
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    if let Some(stat) = fs::read_to_string("/proc/self/stat").ok().and_then(|text| Stat::parse(&text)) {
        let cpu = stat.cpu_ticks as f64 / ticks;
        series.count("process_cpu_seconds_total", "CPU time of user and system.", &[], cpu);
        let resident = stat.resident_pages as f64 * rustix::param::page_size() as f64;
        series.set("process_resident_memory_bytes", "Resident memory.", &[], resident);
        series.set("process_threads", "Threads.", &[], stat.num_threads as f64);
        if let Some(boot) = fs::read_to_string("/proc/stat").ok().and_then(|text| boot_time(&text)) {
            let started = boot as f64 + stat.start_ticks as f64 / ticks;
            series.set("process_start_time_seconds", "Start of the process since the epoch.", &[], started);
        }
    }
    if let Ok(descriptors) = fs::read_dir("/proc/self/fd") {
        // Without the one that lists them.
        let open = descriptors.count().saturating_sub(1);
        series.set("process_open_fds", "Open descriptors.", &[], open as f64);
    }
}

#[derive(Debug, PartialEq)]
struct Stat {
    cpu_ticks: u64,
    num_threads: u64,
    start_ticks: u64,
    resident_pages: u64,
}

impl Stat {
    /// Reads `/proc/PID/stat` (proc_pid_stat(5)), whose second field may hold spaces and brackets.
    fn parse(text: &str) -> Option<Self> {
        let (_, fields) = text.rsplit_once(')')?;
        let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
        // The first of these is the manual's third.
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        Some(Self {
            cpu_ticks: number(14)? + number(15)?,
            num_threads: number(20)?,
            start_ticks: number(22)?,
            resident_pages: number(24)?,
        })
    }
}

fn boot_time(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_of_a_process_are_read_behind_any_name() {
        let text =
            "7 (a ) b) S 1 7 7 0 -1 4194304 1 2 3 4 250 50 0 0 20 0 9 0 12345 1000000 777 18446744073709551615 1";
        let expected = Stat { cpu_ticks: 300, num_threads: 9, start_ticks: 12345, resident_pages: 777 };
        assert_eq!(Stat::parse(text), Some(expected));
        assert_eq!(Stat::parse("7 (short) S 1"), None);
        assert_eq!(boot_time("cpu 1 2\nbtime 1795435200\nprocesses 3"), Some(1_795_435_200));
    }

    #[test]
    fn this_process_is_told() {
        let mut series = Gauges::default();
        add(&mut series);
        let text = series.render();
        let value = |name: &str| -> f64 {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.unwrap_or_else(|| panic!("no `{name}` in:\n{text}")).parse().unwrap()
        };
        assert!(value("process_resident_memory_bytes") > 100_000.0);
        assert!(value("process_open_fds") >= 3.0 && value("process_threads") >= 1.0);
        assert!(value("process_start_time_seconds") > 1.7e9 && value("process_cpu_seconds_total") >= 0.0);
    }
}
