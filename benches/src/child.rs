//! A broker under test: a temporary configuration, a child process, its CPU time and memory from `/proc`.
//! Ends the process it started and no other.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Which program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// Ours.
    Tidegate,
    /// The peer.
    Mosquitto,
}

impl Program {
    /// Its name in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tidegate => "tidegate",
            Self::Mosquitto => "mosquitto",
        }
    }
}

/// What a scenario wants of a broker's configuration beyond a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queues {
    /// The peer's per-client queue is unlimited, so that it never drops; ours keeps its defaults.
    NeverDrop,
    /// Both keep their defaults.
    Default,
}

/// Whether Tidegate remembers anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// Everything is in memory, as the peer is told to.
    Memory,
    /// In the broker's folder, with the defaults.
    Disk,
}

/// A running broker; dropped, it is killed and waited for.
#[derive(Debug)]
pub struct Broker {
    process: Child,
    address: SocketAddr,
    /// Of the operator's page; the peer has none.
    admin: SocketAddr,
    folder: TempDir,
}

impl Broker {
    /// Starts it in memory and waits until its port accepts.
    pub fn start(program: Program, tidegate: &Path, queues: Queues) -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let (port, other) = (free_port()?, free_port()?);
        let command = match program {
            Program::Tidegate => tidegate_command(tidegate, folder.path(), (port, other), Storage::Memory)?,
            Program::Mosquitto => {
                let config = folder.path().join("broker.conf");
                fs::write(&config, mosquitto_config(port, other, queues))?;
                let mut command = Command::new(mosquitto_path());
                command.arg("-c").arg(&config);
                command
            }
        };
        Self::spawn(command, folder, (port, other))
    }

    /// Starts Tidegate, with a folder of its own in this directory.
    pub fn start_in(directory: &Path, tidegate: &Path, storage: Storage) -> io::Result<Self> {
        let folder = tempfile::tempdir_in(directory)?;
        let ports = (free_port()?, free_port()?);
        let command = tidegate_command(tidegate, folder.path(), ports, storage)?;
        Self::spawn(command, folder, ports)
    }

    /// Kills it and starts Tidegate again with what is in its folder, on another port. Answers with the time until it
    /// accepted.
    pub fn crash_and_restart(&mut self, tidegate: &Path) -> io::Result<Duration> {
        self.process.kill()?;
        let _killed = self.process.wait()?;
        let ports = (free_port()?, free_port()?);
        let command = tidegate_command(tidegate, self.folder.path(), ports, Storage::Disk)?;
        let start = Instant::now();
        self.process = spawn(command, self.folder.path())?;
        (self.address, self.admin) = addresses(ports);
        self.wait_until_it_accepts(RESTART_TIME_MAX)?;
        Ok(start.elapsed())
    }

    fn spawn(command: Command, folder: TempDir, ports: (u16, u16)) -> io::Result<Self> {
        let process = spawn(command, folder.path())?;
        let (address, admin) = addresses(ports);
        let mut broker = Self { process, address, admin, folder };
        broker.wait_until_it_accepts(START_TIME_MAX)?;
        Ok(broker)
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// User and system time since it started.
    pub fn cpu(&self) -> io::Result<Duration> {
        cpu_of(&self.process.id().to_string())
    }

    /// Resident memory.
    pub fn rss_bytes(&self) -> io::Result<u64> {
        let folder = PathBuf::from(format!("/proc/{}", self.process.id()));
        // smaps_rollup walks the pages; VmRSS may be off by a batch per CPU.
        let rollup = fs::read_to_string(folder.join("smaps_rollup"))
            .or_else(|_| fs::read_to_string(folder.join("status")))?;
        kib_of(&rollup, &["Rss:", "VmRSS:"])
    }

    /// From here on [`Broker::peak_rss_bytes`] counts.
    pub fn forget_peak(&self) -> io::Result<()> {
        // proc_pid_clear_refs(5): 5 sets the "high water mark" to what is resident.
        fs::write(format!("/proc/{}/clear_refs", self.process.id()), "5")
    }

    /// The most memory that was resident since [`Broker::forget_peak`].
    pub fn peak_rss_bytes(&self) -> io::Result<u64> {
        kib_of(&fs::read_to_string(format!("/proc/{}/status", self.process.id()))?, &["VmHWM:"])
    }

    /// A number on Tidegate's page for Prometheus.
    pub fn metric(&self, name: &str) -> io::Result<f64> {
        let mut stream = TcpStream::connect(self.admin)?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut page = String::new();
        stream.read_to_string(&mut page)?;
        page.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
            .ok_or_else(|| io::Error::other(format!("no {name} on the page of metrics")))
    }

    fn wait_until_it_accepts(&mut self, time_max: Duration) -> io::Result<()> {
        let deadline = Instant::now() + time_max;
        while TcpStream::connect(self.address).is_err() {
            if let Some(status) = self.process.try_wait()? {
                let log = fs::read_to_string(self.folder.path().join("log"))?;
                return Err(io::Error::other(format!("it ended with {status}:\n{log}")));
            }
            if Instant::now() > deadline {
                return Err(io::Error::other(format!("it accepts nothing after {time_max:?}")));
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ended_already = self.process.kill();
        let _status = self.process.wait();
    }
}

fn spawn(mut command: Command, folder: &Path) -> io::Result<Child> {
    let log = fs::File::create(folder.join("log"))?;
    command
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .map_err(|error| io::Error::other(format!("cannot start {command:?}: {error}")))
}

fn addresses((port, admin_port): (u16, u16)) -> (SocketAddr, SocketAddr) {
    let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    (local(port), local(admin_port))
}

/// The first line of /proc that begins with one of `names`, in bytes.
fn kib_of(text: &str, names: &[&str]) -> io::Result<u64> {
    text.lines()
        .find_map(|line| names.iter().find_map(|name| line.strip_prefix(name)))
        .and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok())
        .map(|kib| kib * 1024)
        .ok_or_else(|| io::Error::other("no resident size in /proc"))
}

/// User and system time of a process, `self` included.
pub fn cpu_of(process: &str) -> io::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name in parentheses may hold spaces; utime and stime are fields 14 and 15 of the whole line.
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let ticks = |index: usize| fields.split_whitespace().nth(index).and_then(|word| word.parse::<u64>().ok());
    let (Some(user), Some(system)) = (ticks(11), ticks(12)) else {
        return Err(io::Error::other("no CPU time in /proc"));
    };
    Ok(Duration::from_millis((user + system) * 1000 / rustix::param::clock_ticks_per_second()))
}

/// Raises the soft limit of open files to the hard one; the brokers inherit it. Answers with the limit.
pub fn raise_open_files() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum.unwrap_or(u64::MAX),
        Err(_) => current.unwrap_or(u64::MAX),
    }
}

const START_TIME_MAX: Duration = Duration::from_secs(10);
/// It reads a million messages.
const RESTART_TIME_MAX: Duration = Duration::from_secs(120);

/// Whether the peer is installed.
#[must_use]
pub fn has_mosquitto() -> bool {
    Command::new(mosquitto_path()).arg("-h").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

fn mosquitto_path() -> &'static str {
    // Debian puts it where only root's PATH looks.
    if Path::new("/usr/sbin/mosquitto").exists() { "/usr/sbin/mosquitto" } else { "mosquitto" }
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

fn tidegate_command(
    tidegate: &Path,
    folder: &Path,
    (port, admin_port): (u16, u16),
    storage: Storage,
) -> io::Result<Command> {
    let store = match storage {
        Storage::Memory => "path = \"\"\n",
        Storage::Disk => "path = \"store\"\n",
    };
    let config = folder.join("broker.conf");
    fs::write(
        &config,
        format!(
            "[[listener]]\nbind = \"127.0.0.1:{port}\"\n\n[admin]\nbind = \"127.0.0.1:{admin_port}\"\n\n\
             [store]\n{store}"
        ),
    )?;
    let mut command = Command::new(tidegate);
    command.arg("serve").arg("--config").arg(&config);
    Ok(command)
}

/// Debian's 2.0.11 refuses to start with a websockets listener alone, hence the second port, which nobody uses.
fn mosquitto_config(port: u16, unused_port: u16, queues: Queues) -> String {
    let queued = match queues {
        Queues::NeverDrop => "max_queued_messages 0\nmax_queued_bytes 0\n",
        Queues::Default => "",
    };
    format!(
        "listener {port} 127.0.0.1\nprotocol websockets\nallow_anonymous true\npersistence false\n\
         set_tcp_nodelay true\nlog_type none\nconnection_messages false\nsys_interval 0\n{queued}\
         listener {unused_port} 127.0.0.1\n"
    )
}
