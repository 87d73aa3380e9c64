//! The program: arguments, logging, start, signals. Everything else is in the library.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser as _;
use tidegate::args::{Action, Args};
use tidegate::assembly::Running;
use tidegate::auth::scram;
use tidegate::config::{Config, environment, report};
use tidegate::store_command::{self, StoreCommand};
use tidegate::{logging, password};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

fn main() -> ExitCode {
    match Args::parse().into_action() {
        Action::Check { file, effective } => {
            let (mut out, mut err) = (std::io::stdout().lock(), std::io::stderr().lock());
            let code = report::check(file.as_deref(), effective, environment(), &mut out, &mut err);
            code.map_or(ExitCode::FAILURE, ExitCode::from)
        }
        Action::Scram { name, iterations } => exit_code(scram_line(&name, iterations)),
        Action::Store { command, config, path } => match store(&command, config.as_deref(), path) {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error) => exit_code(Err(error)),
        },
        Action::Serve { config } => exit_code(serve(config.as_deref())),
    }
}

fn exit_code(outcome: Result<(), Box<dyn std::error::Error>>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to tell if this fails.
            let _ = writeln!(std::io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}

/// Prints a user's line.
fn scram_line(name: &str, iterations: u32) -> Result<(), Box<dyn std::error::Error>> {
    let line = scram::user_line(name, &password::read()?, iterations)?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

/// Looks at the store, or copies it. `Ok(false)`: it is damaged.
fn store(
    command: &StoreCommand,
    file: Option<&Path>,
    path: Option<PathBuf>,
) -> Result<bool, Box<dyn std::error::Error>> {
    let (config, _) = Config::load(file, environment())?;
    let path = path.or(config.store.path).ok_or("store.path is \"\": there is no store; --path names one")?;
    let mut out = std::io::stdout().lock();
    let is_sound = store_command::run(command, &path, config.admin.bind, &mut out)?;
    out.flush()?;
    Ok(is_sound)
}

fn serve(file: Option<&Path>) -> Result<(), Box<dyn std::error::Error>> {
    let (config, source) = Config::load(file, environment())?;
    logging::init(&config.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let running = Running::start(&config).await?;
        greet(&running, &source.to_string())?;
        first(&mut terminate, &mut interrupt).await;
        info!(clients = running.clients(), "stopping; a second signal stops at once");
        // Both arms are cancel safe: at a second signal the clients are dropped as they are.
        tokio::select! {
            left = running.stop() => if left > 0 {
                warn!(clients = left, "clients were still connected after shutdown.timeout");
            },
            () = first(&mut terminate, &mut interrupt) => warn!("stopped by a second signal"),
        }
        Ok(())
    })
}

async fn first(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// Where it listens, what it read and what to try first.
fn greet(running: &Running, source: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "tidegate {}, configuration: {source}", env!("CARGO_PKG_VERSION"))?;
    for (listener, address) in running.listeners() {
        writeln!(
            out,
            "listening on ws://{address}/ ({}; paths {})",
            listener.name,
            listener.paths.join(" ")
        )?;
    }
    if let Some(admin) = running.admin() {
        writeln!(out, "admin on http://{admin}/healthz and http://{admin}/metrics")?;
    }
    if let Some((_, address)) = running.listeners().next() {
        writeln!(out, "\ntry, in a browser's console:")?;
        writeln!(out, "  ws = new WebSocket(\"ws://{address}/ws?t=hello/%23&with=topic\")")?;
        writeln!(out, "  ws.onmessage = m => console.log(m.data)")?;
        writeln!(
            out,
            "  new WebSocket(\"ws://{address}/ws?pub=hello/world\").onopen = e => e.target.send(\"hi\")"
        )?;
        writeln!(
            out,
            "or connect an MQTT client to ws://{address}/mqtt, a STOMP client to ws://{address}/stomp"
        )?;
    }
    out.flush()
}
