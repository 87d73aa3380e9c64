//! The command line. Decides nothing: says what was asked for.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand};

use crate::auth::scram::{ITERATIONS_MAX, ITERATIONS_MIN, ITERATIONS_USUAL};
use crate::store_command::StoreCommand;

const EXAMPLES: &str = "\
Examples:
  tidegate                                  serve with ./conf/tidegate.toml, or the built-in defaults
  tidegate serve --config my.toml           serve with your settings
  tidegate check my.toml                    say what is wrong with a file, and where; opens no port
  tidegate check my.toml --effective        print every setting that would be in force
  tidegate scram anna >> users.scram        let a user log in; auth.scram_file names the file
  tidegate store stats                      what waits, and what it takes on the disk
  tidegate store check                      read everything that is stored; exit code 1 if some is damaged
  tidegate store backup /backups/today      copy the store, also of a broker that runs
  TIDEGATE__LISTENER__0__BIND=127.0.0.1:8081 tidegate
                                            override one setting from the environment

Then try, with any WebSocket client:
  ws://127.0.0.1:8080/ws?t=hello&pub=hello  raw: what you send comes back
  ws://127.0.0.1:8080/mqtt                  MQTT 3.1, 3.1.1 and 5
  ws://127.0.0.1:8080/stomp                 STOMP 1.0 to 1.2";

/// Tidegate, a pub/sub broker over WebSocket: raw frames, MQTT and STOMP on one port and one topic space.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: ServeArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve clients until SIGTERM or ctrl-c (the default).
    Serve(ServeArgs),
    /// Check a configuration without opening ports.
    Check {
        /// The file; without one, what `serve` would read.
        file: Option<PathBuf>,
        /// Print every effective value as TOML.
        #[arg(long)]
        effective: bool,
    },
    /// Make a user's line for the file that auth.scram_file names, from a password on stdin.
    ///
    /// Reads one line; a terminal asks twice and shows nothing. The password cannot be had back from the line, but
    /// weak ones can be guessed: keep the file to yourself.
    Scram {
        /// The user.
        name: String,
        /// How slow guessing is, and each login on the client's side.
        #[arg(
            long,
            default_value_t = ITERATIONS_USUAL,
            value_parser = clap::value_parser!(u32).range(i64::from(ITERATIONS_MIN)..=i64::from(ITERATIONS_MAX))
        )]
        iterations: u32,
    },
    /// Look at the store, or copy it.
    Store {
        #[command(subcommand)]
        command: StoreWord,
        #[command(flatten)]
        place: PlaceArgs,
    },
}

#[derive(Clone, Debug, Subcommand)]
enum StoreWord {
    /// Read every record and compare what belongs together. No broker may be running on it.
    Check,
    /// Sessions, queued messages, disk use, the longest queues. No broker may be running on it.
    Stats,
    /// Copy the store as it is at one moment. A broker that runs is asked for it through its admin listener.
    Backup {
        /// Where to; must not exist, or be empty.
        directory: PathBuf,
    },
}

#[derive(Clone, Debug, ClapArgs)]
struct PlaceArgs {
    /// The settings that say where the store is; without it what `serve` would read.
    #[arg(short, long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The store's directory, in the place of what the settings say.
    #[arg(short, long, global = true, value_name = "DIR")]
    path: Option<PathBuf>,
}

#[derive(Clone, Debug, ClapArgs)]
struct ServeArgs {
    /// The settings; without it ./conf/tidegate.toml if it exists, else the built-in defaults.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Run the broker.
    Serve {
        /// For [`crate::config::Config::load`].
        config: Option<PathBuf>,
    },
    /// Run [`crate::config::report::check`].
    Check {
        /// The file.
        file: Option<PathBuf>,
        /// Print the values.
        effective: bool,
    },
    /// Run [`crate::auth::scram::user_line`].
    Scram {
        /// The user.
        name: String,
        /// Of the hash.
        iterations: u32,
    },
    /// Run [`crate::store_command::run`].
    Store {
        /// What is asked for.
        command: StoreCommand,
        /// For [`crate::config::Config::load`].
        config: Option<PathBuf>,
        /// In the place of what the settings say.
        path: Option<PathBuf>,
    },
}

impl Args {
    /// What is to be done.
    #[must_use]
    pub fn into_action(self) -> Action {
        match self.command {
            None => Action::Serve { config: self.serve.config },
            Some(Command::Serve(serve)) => Action::Serve { config: serve.config },
            Some(Command::Check { file, effective }) => Action::Check { file, effective },
            Some(Command::Scram { name, iterations }) => Action::Scram { name, iterations },
            Some(Command::Store { command, place: PlaceArgs { config, path } }) => {
                let command = match command {
                    StoreWord::Check => StoreCommand::Check,
                    StoreWord::Stats => StoreCommand::Stats,
                    StoreWord::Backup { directory } => StoreCommand::Backup(directory),
                };
                Action::Store { command, config, path }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn check(line: &str) -> Result<Action, clap::Error> {
        Args::try_parse_from(line.split(' ')).map(Args::into_action)
    }

    #[test]
    fn the_definition_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn understands_the_documented_lines() {
        let file = || Some(PathBuf::from("a.toml"));
        for (line, action) in [
            ("tidegate", Action::Serve { config: None }),
            ("tidegate serve", Action::Serve { config: None }),
            ("tidegate --config a.toml", Action::Serve { config: file() }),
            ("tidegate serve --config a.toml", Action::Serve { config: file() }),
            ("tidegate check a.toml", Action::Check { file: file(), effective: false }),
            ("tidegate check a.toml --effective", Action::Check { file: file(), effective: true }),
            ("tidegate check", Action::Check { file: None, effective: false }),
            ("tidegate scram anna", Action::Scram { name: "anna".to_owned(), iterations: ITERATIONS_USUAL }),
            (
                "tidegate scram anna --iterations 4096",
                Action::Scram { name: "anna".to_owned(), iterations: ITERATIONS_MIN },
            ),
            (
                "tidegate store check",
                Action::Store { command: StoreCommand::Check, config: None, path: None },
            ),
            (
                "tidegate store stats --config a.toml",
                Action::Store { command: StoreCommand::Stats, config: file(), path: None },
            ),
            (
                "tidegate store --path data backup copy",
                Action::Store {
                    command: StoreCommand::Backup("copy".into()),
                    config: None,
                    path: Some("data".into()),
                },
            ),
        ] {
            assert_eq!(check(line).unwrap(), action, "{line}");
        }
    }

    #[test]
    fn a_usage_error_has_the_exit_code_2() {
        for line in [
            "tidegate chek",
            "tidegate --port 1",
            "tidegate serve --config",
            "tidegate scram",
            "tidegate store",
            "tidegate store backup",
            "tidegate scram anna --iterations 4095",
            "tidegate scram anna --iterations 1000001",
        ] {
            assert_eq!(check(line).unwrap_err().exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn help_has_examples() {
        let help = Args::command().render_help().to_string();
        assert!(help.contains("tidegate check my.toml --effective"), "{help}");
    }
}
