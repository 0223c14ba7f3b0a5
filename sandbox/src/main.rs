//! The sandbox by itself: serve a directory, speak `lfs`, turn its knobs.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use lhsm_sandbox::lfs::{self, Lfs};
use lhsm_sandbox::postgres::Postgres;
use lhsm_sandbox::protocol::{HsmControl, NodeEvent, Request, Tunable};
use lhsm_sandbox::{Client, Mdt, Options, process};

/// A stand-in for Lustre's HSM over a plain directory.
#[derive(Debug, Parser)]
#[command(name = "sandbox")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve DIR as a Lustre mount point until stopped
    Serve {
        /// The directory; made if missing
        dir: PathBuf,
        /// Actions at copytools at a time
        #[arg(long, default_value_t = 1000)]
        max_requests: usize,
        /// Milliseconds between two looks at what waits (Lustre's is 1000)
        #[arg(long, default_value_t = 10)]
        tick_ms: u64,
        /// MDTs; files are on the first but below `lfs mkdir -i`
        #[arg(long, default_value_t = 1)]
        mdts: u32,
        /// Also serve an S3 on this port (bucket lhsm-sandbox)
        #[arg(long, value_name = "PORT")]
        s3: Option<u16>,
    },
    /// The embedded S3 alone (bucket lhsm-sandbox), on this machine's loopback, until its standard input ends
    S3 {
        /// Where it listens; 0: a free port
        #[arg(long, default_value_t = 0)]
        port: u16,
        /// Where bodies lie (default: the system's temporary directory)
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// A PostgreSQL alone (Debian's, database and user of the tests), on a socket that it names, until its standard input ends
    Postgres,
    /// lfs' HSM commands
    Lfs {
        #[command(subcommand)]
        command: Lfs,
    },
    /// Set hsm_control
    Control {
        /// The mount point
        mount: PathBuf,
        /// enabled, disabled, shutdown or purge
        state: String,
        /// Of this MDT
        #[arg(long, default_value_t = 0)]
        mdt: u32,
    },
    /// Set a tunable (its name in JSON form, such as max_requests)
    Set {
        /// The mount point
        mount: PathBuf,
        /// Which
        name: String,
        /// To what
        value: u64,
    },
    /// What becomes of a node: of a client mount with all processes on it
    Node {
        /// The mount point
        mount: PathBuf,
        /// Its name: LHSM_SANDBOX_CLIENT of its processes, else the mount point
        name: String,
        /// kill (it dies with everything), cut, pause, heal or evict
        event: String,
    },
    /// Show agents, nodes, actions and counters as JSON
    Show {
        /// The mount point
        mount: PathBuf,
    },
    /// End the sandbox
    Stop {
        /// The mount point
        mount: PathBuf,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sandbox: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<(), Box<dyn std::error::Error>> {
    match command {
        Command::Serve {
            dir,
            max_requests,
            tick_ms,
            mdts,
            s3,
        } => {
            let options = Options {
                max_requests,
                mdts,
                tick: Duration::from_millis(tick_ms),
                ..Options::new(&dir)
            };
            serve(options, s3)?;
        }
        Command::S3 { port, dir } => {
            let runtime = tokio::runtime::Runtime::new()?;
            let _store = store(&runtime, port, dir)?;
            std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
        }
        Command::Postgres => {
            let Some(postgres) = Postgres::start()? else {
                return Err("there is no PostgreSQL on this machine: install Debian's postgresql".into());
            };
            // It listens nowhere else, so the name is that of the usual port.
            println!("PostgreSQL at {}", postgres.path().join(".s.PGSQL.5432").display());
            std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
        }
        Command::Lfs { command } => print!("{}", lfs::run(&command)?),
        Command::Control { mount, state, mdt } => {
            let control: HsmControl = serde_json::from_value(state.into())?;
            Client::new(&mount)?.control_mdt(mdt, control)?;
        }
        Command::Set { mount, name, value } => {
            let tunable: Tunable = serde_json::from_value(name.into())?;
            Client::new(&mount)?.set(tunable, value)?;
        }
        Command::Node { mount, name, event } => {
            let event: NodeEvent = serde_json::from_value(event.into())?;
            Client::new(&mount)?.node_event(&name, event)?;
        }
        Command::Show { mount } => {
            let mut client = Client::new(&mount)?;
            let shown = serde_json::json!({
                "agents": client.agents()?,
                "nodes": client.nodes()?,
                "actions": client.actions()?,
                "counters": client.counters()?,
            });
            println!("{shown:#}");
        }
        Command::Stop { mount } => {
            Client::new(&mount)?.ask(&Request::Stop)?;
        }
    }
    Ok(())
}

fn serve(options: Options, s3: Option<u16>) -> Result<(), Box<dyn std::error::Error>> {
    let dir = options.mount.clone();
    std::fs::create_dir_all(&dir)?;
    let mdt = Mdt::start(options)?;
    println!("Lustre sandbox at {}", dir.canonicalize()?.display());
    println!(
        "reading a released file {}",
        if mdt.restores_on_read() {
            "restores it"
        } else {
            "gives zeros until it is restored by name (fanotify needs root)"
        }
    );
    if let Ok(library) = process::artifact(process::LIBRARY) {
        println!("library: {}", library.display());
    }
    let runtime = tokio::runtime::Runtime::new()?;
    let _store = match s3 {
        None => None,
        Some(port) => Some(store(&runtime, port, None)?),
    };
    mdt.wait_stopped();
    Ok(())
}

fn store(
    runtime: &tokio::runtime::Runtime,
    port: u16,
    data_dir: Option<PathBuf>,
) -> std::io::Result<lhsm_sandbox_s3::Server> {
    let config = lhsm_sandbox_s3::Config {
        bind: ([127, 0, 0, 1], port).into(),
        data_dir,
        ..lhsm_sandbox_s3::Config::default()
    };
    let said = format!(
        "bucket={} AWS_ACCESS_KEY_ID={} AWS_SECRET_ACCESS_KEY={}",
        config.buckets.join(","),
        config.access_key,
        config.secret_key
    );
    let store = runtime.block_on(lhsm_sandbox_s3::Server::start(config))?;
    println!("S3 at {} {said}", store.endpoint());
    Ok(store)
}
