//! A password from stdin: one line, which a terminal does not show. Knows nothing of what it is for.

use std::io::{self, BufRead, Read as _, Stdin, Write as _};

use rustix::termios::{LocalModes, OptionalActions, Termios, isatty, tcgetattr, tcsetattr};

/// The longest password.
pub const PASSWORD_BYTES_MAX: u64 = 1024;

/// Why there is no password.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// stdin or the terminal.
    #[error("cannot read the password: {0}")]
    Input(#[from] io::Error),
    /// Too long.
    #[error("the password has more than {PASSWORD_BYTES_MAX} bytes")]
    Long,
    /// Not text.
    #[error("the password is not UTF-8")]
    NotUtf8,
    /// A typing error, which nobody could see.
    #[error("the two passwords differ")]
    Differ,
}

/// Reads the first line of stdin. A terminal asks for it twice.
pub fn read() -> Result<String, PasswordError> {
    let stdin = io::stdin();
    if !isatty(&stdin) {
        return line(&mut stdin.lock());
    }
    let silence = Silence::begin(&stdin)?;
    let password = ask("password: ", &stdin)?;
    let again = ask("the same again: ", &stdin)?;
    drop(silence);
    if password == again { Ok(password) } else { Err(PasswordError::Differ) }
}

fn ask(words: &str, stdin: &Stdin) -> Result<String, PasswordError> {
    // Not stdout, which may lead to the file of users.
    let mut err = io::stderr().lock();
    err.write_all(words.as_bytes())?;
    err.flush()?;
    line(&mut stdin.lock())
}

/// One line without its end. No line is an empty one.
fn line(input: &mut impl BufRead) -> Result<String, PasswordError> {
    let mut line = Vec::new();
    // Room for CR and LF.
    input.take(PASSWORD_BYTES_MAX + 2).read_until(b'\n', &mut line)?;
    let text = line.strip_suffix(b"\n").map_or(&*line, |text| text.strip_suffix(b"\r").unwrap_or(text));
    if usize::try_from(PASSWORD_BYTES_MAX).is_ok_and(|max| text.len() > max) {
        return Err(PasswordError::Long);
    }
    String::from_utf8(text.to_vec()).map_err(|_| PasswordError::NotUtf8)
}

/// A terminal that shows nothing but the line's end, until this is dropped.
struct Silence<'a> {
    stdin: &'a Stdin,
    before: Termios,
}

impl<'a> Silence<'a> {
    fn begin(stdin: &'a Stdin) -> io::Result<Self> {
        let before = tcgetattr(stdin)?;
        let mut silent = before.clone();
        // Without ISIG ctrl-c is a character, and one that no password may have: the program ends, but not before
        // the terminal is as it was.
        silent.local_modes -= LocalModes::ECHO | LocalModes::ISIG;
        silent.local_modes |= LocalModes::ECHONL;
        tcsetattr(stdin, OptionalActions::Flush, &silent)?;
        Ok(Self { stdin, before })
    }
}

impl Drop for Silence<'_> {
    fn drop(&mut self) {
        // A terminal that is gone needs no restoring.
        let _ = tcsetattr(self.stdin, OptionalActions::Flush, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(input: &[u8], expected: Result<&str, &str>) {
        let read = line(&mut &*input).map_err(|error| error.to_string());
        assert_eq!(read.as_deref().map_err(String::as_str), expected, "{}", input.escape_ascii());
    }

    #[test]
    fn a_password_is_the_first_line_whatever_ends_it() {
        let long = "x".repeat(1024);
        for (input, password) in [
            ("pencil", "pencil"),
            ("pencil\n", "pencil"),
            ("pencil\r\n", "pencil"),
            ("pencil\nsharpener\n", "pencil"),
            (" pen cil \n", " pen cil "),
            ("pencil\r", "pencil\r"),
            ("", ""),
            ("\n", ""),
            (&long, &long),
            (&format!("{long}\r\n"), &long),
        ] {
            check(input.as_bytes(), Ok(password));
        }
        for input in [format!("{long}x"), format!("{long}x\n"), format!("{long}{long}\n")] {
            check(input.as_bytes(), Err("the password has more than 1024 bytes"));
        }
        check(b"p\xFFncil\n", Err("the password is not UTF-8"));
    }
}
