//! Log lines to stderr, as text or JSON. No control character of a peer's reaches a terminal or forges a line (SEC-23).

use std::io::{self, Write};

use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::{Log, LogFormat};

/// Starts logging for the whole process. The error is a sentence: a level that does not parse, or a second call.
pub fn init(log: &Log) -> Result<(), String> {
    let subscriber = subscriber(log, io::stderr)?;
    tracing::subscriber::set_global_default(subscriber).map_err(|error| error.to_string())
}

/// What [`init`] installs, writing elsewhere.
pub fn subscriber<W>(log: &Log, writer: W) -> Result<Box<dyn Subscriber + Send + Sync>, String>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let builder = tracing_subscriber::fmt()
        .with_env_filter(parse_level(&log.level)?)
        // Colours are control characters too.
        .with_ansi(false)
        .with_writer(Escaping(writer));
    Ok(match log.format {
        LogFormat::Text => Box::new(builder.finish()),
        LogFormat::Json => Box::new(builder.json().flatten_event(true).finish()),
    })
}

/// Reads `log.level`: a level, or a list of levels and `part=level`. Stricter than [`EnvFilter`], to which a mistyped
/// level is the name of a part.
pub fn parse_level(text: &str) -> Result<EnvFilter, String> {
    for directive in text.split(',').map(str::trim) {
        let level = directive.split_once('=').map_or(directive, |(_, level)| level.trim());
        if !matches!(level, "off" | "error" | "warn" | "info" | "debug" | "trace") {
            return Err(format!("{level:?} is no level; known are error, warn, info, debug, trace and off"));
        }
    }
    EnvFilter::try_new(text).map_err(|error| format!("{text:?} is no level: {error}"))
}

/// Makes writers that escape.
struct Escaping<W>(W);

impl<'a, W: MakeWriter<'a>> MakeWriter<'a> for Escaping<W> {
    type Writer = EscapingWriter<W::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        EscapingWriter(self.0.make_writer())
    }

    fn make_writer_for(&'a self, meta: &tracing::Metadata<'_>) -> Self::Writer {
        EscapingWriter(self.0.make_writer_for(meta))
    }
}

/// Escapes all control characters but the line feed at the very end. `tracing-subscriber` writes each event in one
/// call, so that line feed is its own.
struct EscapingWriter<W>(W);

impl<W: Write> Write for EscapingWriter<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let (line, end) = text.strip_suffix('\n').map_or((&*text, ""), |line| (line, "\n"));
        if !line.contains(char::is_control) {
            self.0.write_all(event)?;
            return Ok(event.len());
        }
        let mut escaped = String::with_capacity(text.len() + 16);
        for character in line.chars() {
            match character {
                '\n' => escaped.push_str("\\n"),
                '\r' => escaped.push_str("\\r"),
                '\t' => escaped.push_str("\\t"),
                // JSON's form, so that both formats stay what they are.
                c if c.is_control() => escaped.push_str(&format!("\\u{:04x}", u32::from(c))),
                c => escaped.push(c),
            }
        }
        escaped.push_str(end);
        self.0.write_all(escaped.as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, level: &str, act: impl FnOnce()) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let log = Log { level: level.to_owned(), format };
        tracing::subscriber::with_default(subscriber(&log, move || writer.clone()).unwrap(), act);
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_client_cannot_forge_a_line() {
        for format in [LogFormat::Text, LogFormat::Json] {
            let id = "x\n2026 INFO forged\r\u{1b}[31m\u{9b}2J\u{7f}";
            let text = logged(format, "info", || tracing::info!(client = %id, "connected {id}"));
            let line = text.strip_suffix('\n').unwrap();
            assert!(!line.contains(char::is_control), "{line:?}");
            assert!(line.contains("forged"), "{line:?}");
        }
    }

    #[test]
    fn json_lines_parse() {
        let text = logged(LogFormat::Json, "info", || tracing::info!(client = "a\u{85}\"\tb", "connected"));
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["client"], "a\u{85}\"\tb");
    }

    #[test]
    fn the_level_is_obeyed() {
        let act = || tracing::info!("seen");
        assert!(logged(LogFormat::Text, "info", act).contains("seen"));
        assert_eq!(logged(LogFormat::Text, "warn", act), "");
        assert!(logged(LogFormat::Text, "warn,tidegate=info", act).contains("seen"));
    }

    #[test]
    fn a_mistyped_level_is_refused() {
        for level in ["inof", "", "info,", "tidegate=loud", "tidegate="] {
            assert!(parse_level(level).unwrap_err().contains("is no level"), "{level}");
        }
    }
}
