//! `lhsmtool-s3 generate DIR`: man pages and completions, for packages.

use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory as _, ValueEnum as _};
use clap_complete::Shell;

use super::Cli;

/// Where to.
#[derive(Debug, Args)]
pub struct GenerateArgs {
    /// A directory; `man` and `completions` are made in it
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

impl GenerateArgs {
    /// Writes them.
    ///
    /// # Errors
    /// The directory can't be written.
    pub fn run(&self) -> Result<(), Box<dyn std::error::Error>> {
        let man = self.directory.join("man");
        let completions = self.directory.join("completions");
        std::fs::create_dir_all(&man)?;
        std::fs::create_dir_all(&completions)?;
        write_man(&Cli::command(), &man)?;
        for shell in Shell::value_variants() {
            clap_complete::generate_to(*shell, &mut Cli::command(), "lhsmtool-s3", &completions)?;
        }
        Ok(())
    }
}

/// One page for the program and one for each command.
fn write_man(command: &clap::Command, directory: &Path) -> std::io::Result<()> {
    clap_mangen::generate_to(command.clone().disable_help_subcommand(true), directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_has_a_man_page_and_each_shell_its_completions() {
        let dir = tempfile::tempdir().unwrap();
        let args = GenerateArgs {
            directory: dir.path().to_owned(),
        };
        args.run().unwrap();
        let page = |name: &str| std::fs::read_to_string(dir.path().join("man").join(name)).unwrap();
        assert!(page("lhsmtool-s3.1").contains("copytool"));
        for command in Cli::command()
            .get_subcommands()
            .filter(|command| !command.is_hide_set())
        {
            assert!(page(&format!("lhsmtool-s3-{}.1", command.get_name())).contains(".TH"));
        }
        let bash = std::fs::read_to_string(dir.path().join("completions/lhsmtool-s3.bash")).unwrap();
        assert!(bash.contains("print-config") && bash.contains("--event-fifo"));
    }
}
