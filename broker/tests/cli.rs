//! The program as the operator runs it: help, `check`, what it says at the start, and how signals end it.
#![expect(clippy::unwrap_used, clippy::panic, reason = "test helpers may panic")]

mod support;

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::pty::{self, OpenptFlags};
use rustix::termios::{LocalModes, tcgetattr};
use support::http;
use support::socket::{Ask, End, Socket};
use tempfile::TempDir;

/// The longest that the program may take. Nothing waits for it to pass.
const PATIENCE: Duration = Duration::from_secs(20);

/// The program, with no settings of ours, in an empty directory.
fn program(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TIDEGATE") {
            command.env_remove(name);
        }
    }
    command.args(arguments).current_dir(directory).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs it to its end, which must come by itself.
fn run(mut command: Command) -> Output {
    let child = command.spawn().unwrap();
    let id = child.id();
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || send.send(child.wait_with_output()));
    match receive.recv_timeout(PATIENCE) {
        Ok(output) => output.unwrap(),
        Err(_) => {
            signal(id, "KILL");
            panic!("it did not end by itself")
        }
    }
}

/// Runs it and compares the exit code; gives stdout and stderr.
fn check_run(command: Command, code: i32) -> (String, String) {
    let output = run(command);
    let out = String::from_utf8(output.stdout).unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "stdout: {out}\nstderr: {err}");
    (out, err)
}

fn check_has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing in:\n{text}");
    }
}

fn file(directory: &TempDir, text: &str) -> PathBuf {
    let path = directory.path().join("my.toml");
    std::fs::write(&path, text).unwrap();
    path
}

fn signal(id: u32, name: &str) {
    let status = Command::new("kill").arg(format!("-{name}")).arg(id.to_string()).status().unwrap();
    assert!(status.success(), "kill -{name} {id}: {status}");
}

/// A program that serves, killed when dropped.
struct Serving {
    child: Child,
    /// All that it said until it was ready.
    greeting: String,
    address: SocketAddr,
    admin: SocketAddr,
    /// Lines of the log.
    log: mpsc::Receiver<String>,
    _directory: TempDir,
}

const FREE_PORTS: &str =
    "[[listener]]\nname = \"web\"\nbind = \"127.0.0.1:0\"\n[admin]\nbind = \"127.0.0.1:0\"\n";

impl Serving {
    /// Starts with free ports, these lines of configuration and these variables.
    fn start(settings: &str, variables: &[(&str, &str)]) -> Self {
        let directory = TempDir::new().unwrap();
        let path = file(&directory, &format!("{FREE_PORTS}{settings}"));
        let mut command = program(directory.path(), &["serve", "--config", path.to_str().unwrap()]);
        let mut child = command.envs(variables.iter().copied()).spawn().unwrap();
        let out = lines(child.stdout.take().unwrap());
        let log = lines(child.stderr.take().unwrap());
        let mut greeting = String::new();
        // The last line of the greeting.
        while !greeting.contains("a STOMP client to") {
            let Ok(line) = out.recv_timeout(PATIENCE) else {
                let log: Vec<String> = log.try_iter().collect();
                // It may have ended already.
                let _ = child.kill();
                panic!("no greeting: {greeting}\n{log:?}")
            };
            greeting.push_str(&line);
            greeting.push('\n');
        }
        let address = after(&greeting, "listening on ws://");
        let admin = after(&greeting, "admin on http://");
        Self { child, greeting, address, admin, log, _directory: directory }
    }

    /// Waits for a line of the log that has this part.
    fn logged(&self, part: &str) {
        while let Ok(line) = self.log.recv_timeout(PATIENCE) {
            if line.contains(part) {
                return;
            }
        }
        panic!("no line of the log has {part:?}");
    }

    fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// Waits for the end: both streams are closed then.
    fn end(&mut self) -> ExitStatus {
        while self.log.recv_timeout(PATIENCE).is_ok() {}
        assert_eq!(self.log.recv_timeout(PATIENCE), Err(mpsc::RecvTimeoutError::Disconnected));
        self.child.wait().unwrap()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // It has ended already in most tests.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The lines of a stream, as they come.
fn lines(stream: impl std::io::Read + Send + 'static) -> mpsc::Receiver<String> {
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || {
        // The test may have lost interest.
        BufReader::new(stream).lines().map_while(Result::ok).try_for_each(|line| send.send(line))
    });
    receive
}

/// The address that follows these words.
fn after(text: &str, words: &str) -> SocketAddr {
    let (_, rest) = text.split_once(words).unwrap_or_else(|| panic!("no {words:?} in:\n{text}"));
    rest.split('/').next().unwrap().parse().unwrap()
}

// ---- help and usage ----

#[test]
fn help_says_what_there_is_and_what_to_try() {
    let directory = TempDir::new().unwrap();
    let (out, err) = check_run(program(directory.path(), &["--help"]), 0);
    check_has(
        &out,
        &["pub/sub broker", "serve", "check", "scram", "--config", "Examples:", "/ws?t=hello", "TIDEGATE__"],
    );
    assert_eq!(err, "");
    let (out, _) = check_run(program(directory.path(), &["check", "--help"]), 0);
    check_has(&out, &["--effective", "without opening ports"]);
    let (out, _) = check_run(program(directory.path(), &["--version"]), 0);
    assert_eq!(out.trim(), concat!("tidegate ", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_mistyped_argument_is_explained_with_the_exit_code_2() {
    let directory = TempDir::new().unwrap();
    let (_, err) = check_run(program(directory.path(), &["chek"]), 2);
    check_has(&err, &["chek", "check"]);
    let (_, err) = check_run(program(directory.path(), &["--confg", "x"]), 2);
    check_has(&err, &["--confg", "--config"]);
}

// ---- scram ----

/// The user's line that the program makes for this input.
fn check_scram(arguments: &[&str], password: &[u8], code: i32) -> (String, String) {
    let directory = TempDir::new().unwrap();
    let input = directory.path().join("password");
    std::fs::write(&input, password).unwrap();
    let mut command = program(directory.path(), arguments);
    command.stdin(File::open(input).unwrap());
    check_run(command, code)
}

#[test]
fn scram_makes_a_line_that_check_accepts() {
    let (out, err) = check_scram(&["scram", "anna"], b"pencil\n", 0);
    assert_eq!(err, "");
    assert!(out.starts_with("anna:SCRAM-SHA-256$15000:") && out.ends_with("=\n"), "{out}");
    let (other, _) = check_scram(&["scram", "bob", "--iterations", "4096"], b"pencil", 0);
    assert!(other.starts_with("bob:SCRAM-SHA-256$4096:"), "{other}");

    // A relative path is meant from the working directory.
    let directory = TempDir::new().unwrap();
    std::fs::write(directory.path().join("users.scram"), format!("# users\n{out}{other}")).unwrap();
    file(&directory, "[auth]\nscram_file = \"users.scram\"\n");
    let (out, _) = check_run(program(directory.path(), &["check", "my.toml"]), 0);
    check_has(&out, &["ok: my.toml"]);
    std::fs::write(directory.path().join("users.scram"), format!("{other}{other}")).unwrap();
    for arguments in [&["check", "my.toml"][..], &["--config", "my.toml"]] {
        let (out, err) = check_run(program(directory.path(), arguments), 1);
        check_has(&err, &["my.toml:2:14: `auth.scram_file`: users.scram:2: line 1 is about the same user"]);
        assert_eq!(out, "");
    }
}

#[test]
fn scram_says_what_it_cannot_use() {
    for (arguments, password, code, part) in [
        (&["scram", "anna"][..], &b""[..], 1, "the password is empty"),
        (&["scram", "anna"], b"\nx\n", 1, "the password is empty"),
        (&["scram", "anna"], b"pen\xFFcil\n", 1, "the password is not UTF-8"),
        (&["scram", "anna"], b"pen\x07cil\n", 1, "SASLprep"),
        (&["scram", "anna"], &[b'x'; 2000], 1, "more than 1024 bytes"),
        (&["scram", "#anna"], b"pencil\n", 1, "begins with '#'"),
        (&["scram", "anna", "--iterations", "1000"], b"pencil\n", 2, "4096..=1000000"),
        (&["scram"], b"pencil\n", 2, "NAME"),
    ] {
        let (out, err) = check_scram(arguments, password, code);
        check_has(&err, &[part]);
        assert!(!err.contains("cil"), "{err}");
        assert_eq!(out, "");
    }
}

/// Runs `tidegate scram anna` at a terminal where somebody types these; gives stdout, and what stderr and the
/// terminal showed.
fn at_a_terminal(first: &str, second: &str, code: i32) -> (String, String, String) {
    let controller = pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    pty::grantpt(&controller).unwrap();
    pty::unlockpt(&controller).unwrap();
    let terminal = PathBuf::from(pty::ptsname(&controller, Vec::new()).unwrap().into_string().unwrap());
    // Open as long as the program might not be: without anybody there, a read fails.
    let terminal = File::options().read(true).write(true).open(terminal).unwrap();
    let mut controller = File::from(controller);

    let directory = TempDir::new().unwrap();
    let mut command = program(directory.path(), &["scram", "anna"]);
    let mut child = command.stdin(terminal.try_clone().unwrap()).spawn().unwrap();
    let mut err = child.stderr.take().unwrap();
    let mut prompts = String::new();
    for (prompt, typed) in [("password: ", first), ("again: ", second)] {
        while !prompts.ends_with(prompt) {
            let mut byte = [0];
            err.read_exact(&mut byte).unwrap();
            prompts.extend(byte.map(char::from));
        }
        controller.write_all(typed.as_bytes()).unwrap();
    }
    err.read_to_string(&mut prompts).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(code), "{prompts}");
    // The terminal is as it was, or the rest would wait for ever.
    let modes = tcgetattr(&terminal).unwrap().local_modes;
    assert!(modes.contains(LocalModes::ECHO | LocalModes::ISIG), "{modes:?}");
    controller.write_all(b"seen\n").unwrap();
    let mut shown = String::new();
    while !shown.contains("seen") {
        let mut byte = [0];
        controller.read_exact(&mut byte).unwrap();
        shown.extend(byte.map(char::from));
    }
    (String::from_utf8(output.stdout).unwrap(), prompts, shown)
}

#[test]
fn a_terminal_is_asked_twice_and_shows_no_password() {
    let (out, prompts, shown) = at_a_terminal("pencil\n", "pencil\n", 0);
    assert!(out.starts_with("anna:SCRAM-SHA-256$15000:"), "{out}");
    assert_eq!((&*prompts, shown.trim()), ("password: the same again: ", "seen"));

    let (out, prompts, shown) = at_a_terminal("pencil\n", "pencli\n", 1);
    assert_eq!(out, "");
    assert_eq!((&*prompts, shown.trim()), ("password: the same again: the two passwords differ\n", "seen"));

    // Ctrl-c.
    let (out, _, shown) = at_a_terminal("pen\x03\n", "pen\x03\n", 1);
    assert_eq!((&*out, shown.trim()), ("", "seen"));
}

// ---- check ----

#[test]
fn check_accepts_a_good_file_and_tells_the_memory() {
    let directory = TempDir::new().unwrap();
    let path = file(&directory, "[queue]\nmax_bytes = \"2 MiB\"\n");
    let path = path.to_str().unwrap();
    let (out, err) = check_run(program(directory.path(), &["check", path]), 0);
    check_has(&out, &["ok: ", "my.toml", "memory: per client at most 2 × 2 MiB", "store: in data, "]);
    assert_eq!(err, "");

    let (out, _) = check_run(program(directory.path(), &["check", path, "--effective"]), 0);
    let values: toml::Table = out.parse().unwrap();
    let queue = values.get("queue").and_then(toml::Value::as_table).unwrap();
    assert_eq!(queue.get("max_bytes").and_then(toml::Value::as_str), Some("2 MiB"));
    assert!(values.contains_key("listener"), "{out}");
}

#[test]
fn check_says_where_a_file_is_wrong_and_what_was_meant() {
    let directory = TempDir::new().unwrap();
    for (text, parts) in [
        ("[queue]\nmax_mesages = 5\n", &["my.toml:2:1: ", "max_mesages", "did you mean `max_messages`?"][..]),
        ("[websockets]\n", &["my.toml:1:2: ", "did you mean `websocket`?"]),
        ("[queue]\nmax_messages = \"many\"\n", &["my.toml:2:16: ", "queue.max_messages"]),
        ("[queue]\nmax_messages = = 5\n", &["my.toml:2:"]),
        // Every problem is told at once.
        ("[mqtt]\nmax_qso = 1\n[stomp]\nprefetsch = 5\n", &[":2:1: ", "max_qos", ":4:1: ", "prefetch"]),
    ] {
        let path = file(&directory, text);
        let (out, err) = check_run(program(directory.path(), &["check", path.to_str().unwrap()]), 1);
        check_has(&err, parts);
        assert_eq!(out, "", "{text}");
    }
    let (_, err) = check_run(program(directory.path(), &["check", "nowhere.toml"]), 1);
    check_has(&err, &["nowhere.toml"]);
}

#[test]
fn a_bad_file_does_not_start() {
    let directory = TempDir::new().unwrap();
    let path = file(&directory, "[queue]\nmax_mesages = 5\n");
    let (out, err) = check_run(program(directory.path(), &["--config", path.to_str().unwrap()]), 1);
    check_has(&err, &["my.toml:2:1: ", "did you mean `max_messages`?"]);
    assert_eq!(out, "");
}

// ---- start ----

#[tokio::test]
async fn at_the_start_it_says_where_it_listens_what_it_read_and_what_to_try() {
    let serving = Serving::start("", &[]);
    check_has(&serving.greeting, &["configuration: ", "my.toml", "(web; paths / /ws /mqtt /stomp)", "try, "]);
    // What it tells to try is true.
    let target = "/ws?t=hello/%23&with=topic";
    check_has(&serving.greeting, &[&format!("ws://{}{target}", serving.address), "/ws?pub=hello/world"]);
    let mut reader = Socket::open(serving.address, Ask { target, ..Ask::default() }).await;
    reader.barrier().await;
    let ask = Ask { target: "/ws?pub=hello/world", ..Ask::default() };
    Socket::open(serving.address, ask).await.send_text("hi").await;
    assert_eq!(reader.message().await.into_bytes(), "hello/world\nhi");
    assert_eq!(http::get(serving.admin, "/healthz").await.status, 200);
    assert_eq!(http::get(serving.admin, "/metrics").await.status, 200);
}

#[test]
fn the_file_in_the_working_directory_is_read_without_an_argument() {
    let directory = TempDir::new().unwrap();
    let (out, _) = check_run(program(directory.path(), &["check"]), 0);
    check_has(&out, &["ok: built-in defaults"]);
    std::fs::create_dir(directory.path().join("conf")).unwrap();
    std::fs::write(directory.path().join("conf/tidegate.toml"), "[queue]\nmax_messages = 77\n").unwrap();
    let (out, _) = check_run(program(directory.path(), &["check", "--effective"]), 0);
    check_has(&out, &["conf/tidegate.toml", "max_messages = 77"]);
}

#[tokio::test]
async fn a_variable_overrides_the_file() {
    let variables = [("TIDEGATE__LISTENER__0__PATHS", "[\"/only\"]"), ("TIDEGATE__ADMIN__METRICS", "false")];
    let serving = Serving::start("metrics = true\n", &variables);
    check_has(&serving.greeting, &["paths /only"]);
    assert_eq!(http::upgrade(serving.address, "/ws", &[]).await.status, 404);
    assert_eq!(http::upgrade(serving.address, "/only", &[]).await.status, 101);
    assert_eq!(http::get(serving.admin, "/metrics").await.status, 404);
}

#[test]
fn a_wrong_variable_is_named() {
    let directory = TempDir::new().unwrap();
    let mut command = program(directory.path(), &["serve"]);
    command.env("TIDEGATE__QUEUE__MAX_MESAGES", "5");
    let (_, err) = check_run(command, 1);
    check_has(&err, &["TIDEGATE__QUEUE__MAX_MESAGES", "max_messages"]);
}

#[test]
fn a_port_in_use_is_an_error_that_names_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let directory = TempDir::new().unwrap();
    for (listener, admin, part) in
        [(&*address, "127.0.0.1:0", "listener \"web\""), ("127.0.0.1:0", &*address, "admin listener")]
    {
        let text = format!(
            "[[listener]]\nname = \"web\"\nbind = \"{listener}\"\n[admin]\nbind = \"{admin}\"\n[store]\npath = \"\"\n"
        );
        let path = file(&directory, &text);
        let (out, err) = check_run(program(directory.path(), &["--config", path.to_str().unwrap()]), 1);
        check_has(&err, &[part, &address, "in use"]);
        assert_eq!(out, "");
        assert_eq!(err.trim().lines().count(), 1, "{err}");
    }
}

// ---- signals ----

#[tokio::test]
async fn a_signal_tells_the_clients_and_ends_with_success() {
    for name in ["TERM", "INT"] {
        let mut serving = Serving::start("", &[]);
        let mut client = Socket::open(serving.address, Ask::default()).await;
        client.barrier().await;
        serving.signal(name);
        let End::Closed { code, reason } = client.end().await else { panic!("SIG{name}: no Close") };
        assert_eq!(code, 1001, "SIG{name}");
        check_has(&reason, &["shutting down", "retry-after="]);
        client.answer_close().await;
        let status = serving.end();
        assert_eq!(status.code(), Some(0), "SIG{name}: {status}");
    }
}

#[tokio::test]
async fn a_second_signal_stops_at_once() {
    // The grace is longer than the patience of this test.
    let mut serving = Serving::start("[shutdown]\nreadiness_grace = \"60s\"\n", &[]);
    let mut client = Socket::open(serving.address, Ask::default()).await;
    client.barrier().await;
    serving.signal("TERM");
    serving.logged("a second signal stops at once");
    client.barrier().await;
    serving.signal("TERM");
    serving.logged("stopped by a second signal");
    let status = serving.end();
    assert_eq!(status.code(), Some(0), "{status}");
    client.tcp_end().await;
}
