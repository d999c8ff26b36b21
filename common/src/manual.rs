//! The manual page of a program, from its own arguments: one page with all its commands.

use std::io;

use clap::Command;
use clap_mangen::Man;

/// The page in the language of man(7).
///
/// # Errors
/// None as of now: it is written into memory.
pub fn page(command: Command) -> io::Result<Vec<u8>> {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    let main = Man::new(command.clone()).manual("Millrace");
    let mut page = Vec::new();
    main.render_title(&mut page)?;
    main.render_name_section(&mut page)?;
    main.render_synopsis_section(&mut page)?;
    main.render_description_section(&mut page)?;
    main.render_options_section(&mut page)?;
    page.extend_from_slice(b".SH COMMANDS\n");
    commands(&command, &mut page)?;
    Ok(page)
}

fn commands(parent: &Command, page: &mut Vec<u8>) -> io::Result<()> {
    for command in parent.get_subcommands().filter(|command| !command.is_hide_set()) {
        let name = command.get_bin_name().unwrap_or(command.get_name());
        page.extend_from_slice(format!(".SS \"{name}\"\n").as_bytes());
        // What every command takes stands above.
        let is_common = |arg: &clap::Arg| arg.is_global_set() || arg.get_id() == "help";
        let own = command.clone().mut_args(|arg| if is_common(&arg) { arg.hide(true) } else { arg });
        let man = Man::new(own);
        if command.has_subcommands() {
            body(page, |out| man.render_description_section(out))?;
            commands(command, page)?;
        } else {
            body(page, |out| man.render_synopsis_section(out))?;
            page.extend_from_slice(b".PP\n");
            body(page, |out| man.render_description_section(out))?;
            body(page, |out| man.render_options_section(out))?;
        }
    }
    Ok(())
}

/// A section without its heading and what stands before it.
fn body(page: &mut Vec<u8>, render: impl FnOnce(&mut dyn io::Write) -> io::Result<()>) -> io::Result<()> {
    let mut section = Vec::new();
    render(&mut section)?;
    let section = String::from_utf8_lossy(&section);
    let text = section.split_once(".SH ").and_then(|(_, section)| section.split_once('\n'));
    page.extend_from_slice(text.map_or("", |(_, text)| text).as_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Arg;

    use super::*;

    #[test]
    fn every_command_stands_in_the_page_with_its_own_arguments_only() {
        let log = Arg::new("log").long("log").global(true).help("How to log.");
        let list = Command::new("list").about("List things.").arg(Arg::new("since").long("since").help("From when."));
        let hidden = Command::new("secret").hide(true);
        let program = Command::new("millet").version("1.2").about("Grinds.").arg(log);
        let program = program.subcommands([Command::new("dlq").about("Letters.").subcommand(list), hidden]);
        let page = String::from_utf8(page(program).unwrap()).unwrap();
        assert!(page.contains(".TH millet 1"), "{page}");
        for heading in [".SS \"millet dlq\"", ".SS \"millet dlq list\"", "List things.", "From when."] {
            assert_eq!(page.matches(heading).count(), 1, "{heading}\n{page}");
        }
        assert_eq!(page.matches("How to log.").count(), 1, "{page}");
        assert!(!page.contains("secret") && !page.contains("millet help"), "{page}");
    }
}
