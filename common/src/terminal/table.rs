//! Tables for people, made to fit the terminal. Pure.

/// A column, and how early it goes where the terminal is narrow: the highest first, 0 never.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    pub title: &'static str,
    pub goes: u8,
    pub is_number: bool,
}

const GAP: usize = 2;
const MIN_FIRST: usize = 24;

/// The titles and one line for each row, none wider than `width`. Of the first column, which is for paths, the beginning is
/// left out where it must be.
pub fn lines<const N: usize>(columns: &[Column; N], cells: &[[String; N]], width: usize) -> Vec<String> {
    let titles = columns.map(|column| column.title.to_owned());
    let all = || std::iter::once(&titles).chain(cells);
    let widths: [usize; N] = std::array::from_fn(|at| all().map(|cells| self::width(&cells[at])).max().unwrap_or(0));
    let mut shown: Vec<usize> = (0..N).collect();
    let others = |shown: &[usize]| shown.iter().filter(|&&at| at > 0).map(|&at| widths[at] + GAP).sum::<usize>();
    let wanted = widths[0].min(MIN_FIRST);
    while others(&shown) + wanted > width {
        let goes = shown.iter().copied().filter(|&at| columns[at].goes > 0).max_by_key(|&at| columns[at].goes);
        let Some(goes) = goes else { break };
        shown.retain(|&at| at != goes);
    }
    let first = widths[0].min(width.saturating_sub(others(&shown)).max(1));
    all()
        .map(|cells| {
            let mut line = pad(&shorten(&cells[0], first), first, false);
            for &at in shown.iter().filter(|&&at| at > 0) {
                line.push_str(&" ".repeat(GAP));
                line.push_str(&pad(&cells[at], widths[at], columns[at].is_number));
            }
            line.trim_end().to_owned()
        })
        .collect()
}

/// A head, the table, how many rows are left out, and notes, each line ended and none wider than `width`.
pub fn page<const N: usize>(
    head: &str,
    columns: &[Column; N],
    cells: &[[String; N]],
    num_hidden: u64,
    notes: &[String],
    width: usize,
) -> String {
    let hidden = (num_hidden > 0).then(|| format!("… and {num_hidden} more"));
    let notes = notes.iter().map(|note| clip(note, width));
    let all = std::iter::once(clip(head, width)).chain(lines(columns, cells, width)).chain(hidden).chain(notes);
    all.map(|line| line + "\n").collect()
}

/// Cells of a terminal that the text takes. East Asian wide characters take two; what is narrower than counted only costs room.
pub fn width(text: &str) -> usize {
    text.chars().map(char_width).sum()
}

fn char_width(c: char) -> usize {
    let is_wide = matches!(c, '\u{1100}'..='\u{115f}' | '\u{2e80}'..='\u{a4cf}' | '\u{ac00}'..='\u{d7a3}'
        | '\u{f900}'..='\u{faff}' | '\u{fe30}'..='\u{fe6f}' | '\u{ff00}'..='\u{ff60}' | '\u{ffe0}'..='\u{ffe6}'
        | '\u{1f300}'..='\u{1faff}' | '\u{20000}'..='\u{3fffd}');
    1 + usize::from(is_wide)
}

fn pad(text: &str, to: usize, is_right: bool) -> String {
    let blanks = " ".repeat(to.saturating_sub(width(text)));
    if is_right { blanks + text } else { text.to_owned() + &blanks }
}

/// Leaves out the beginning of a path that is too long: its end tells files apart.
fn shorten(path: &str, to: usize) -> String {
    if width(path) <= to {
        return path.to_owned();
    }
    let mut kept = Vec::new();
    let mut room = to.saturating_sub(1);
    for c in path.chars().rev() {
        let Some(rest) = room.checked_sub(char_width(c)) else { break };
        room = rest;
        kept.push(c);
    }
    std::iter::once('…').chain(kept.into_iter().rev()).collect()
}

/// As much of a line as fits.
pub fn clip(line: &str, columns: usize) -> String {
    let mut room = columns;
    let fits = line.chars().take_while(|&c| {
        let rest = room.checked_sub(char_width(c));
        room = rest.unwrap_or(0);
        rest.is_some()
    });
    fits.collect()
}

/// `1,234,567`
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1,234 bytes`, or `12.3 MiB`.
pub fn bytes(num: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match UNITS.iter().find(|(_, size)| num >= *size * 10) {
        Some((unit, size)) => format!("{:.1} {unit}", num as f64 / *size as f64),
        None => format!("{} bytes", grouped(num)),
    }
}

/// `1 file`, `2 files`.
pub fn plural(num: usize, what: &str) -> String {
    format!("{num} {what}{}", if num == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 3] = [
        Column { title: "PATH", goes: 0, is_number: false },
        Column { title: "SIZE", goes: 2, is_number: true },
        Column { title: "STATE", goes: 1, is_number: false },
    ];

    #[test]
    fn columns_go_and_paths_are_shortened_until_every_line_fits() {
        let cells = [["/var/log/with/a/long/way/to/a.log".to_owned(), "12,345".to_owned(), "OKAY".to_owned()]];
        for width in [8, 12, 30, 40, 80] {
            let text = lines(&COLUMNS, &cells, width);
            assert!(text.iter().all(|line| self::width(line) <= width), "{width}: {text:?}");
        }
        assert!(lines(&COLUMNS, &cells, 80)[1].ends_with("12,345  OKAY"));
        assert!(!lines(&COLUMNS, &cells, 36)[0].contains("SIZE"));
    }
}
