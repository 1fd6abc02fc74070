//! Man page and completions, from the definition of the command line.

use std::io::{self, Write};

use clap::CommandFactory;
use clap_mangen::Man;
use netdumpd::options::{Args, Generate};

/// Prints it to standard output.
///
/// # Errors
/// What the output says.
pub(crate) fn print(what: &Generate) -> io::Result<()> {
    let mut output = io::stdout().lock();
    match what {
        Generate::Man => man(&mut output),
        Generate::Completions { shell } => {
            clap_complete::generate(*shell, &mut Args::command(), "netdumpd", &mut output);
            output.flush()
        }
    }
}

fn man(output: &mut dyn Write) -> io::Result<()> {
    let mut command = Args::command();
    command.build();
    let page = Man::new(command.clone()).section("8");
    page.render(output)?;
    let subcommands = command.get_subcommands();
    for subcommand in subcommands.filter(|subcommand| subcommand.get_name() == "inspect") {
        writeln!(output, ".SH \"NETDUMPD INSPECT\"")?;
        let page = Man::new(subcommand.clone());
        page.render_synopsis_section(output)?;
        page.render_description_section(output)?;
        page.render_options_section(output)?;
    }
    output.flush()
}
