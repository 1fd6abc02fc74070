//! Man page and completions, from the definition of the command line.

use std::io::{self, Write};

use clap::CommandFactory;
use clap_mangen::Man;

use crate::args::{Args, Generate};

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
    Man::new(Args::command()).section("8").render(output)?;
    output.flush()
}
