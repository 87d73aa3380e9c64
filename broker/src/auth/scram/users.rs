//! The operator's file of users: one line each, in the form in which PostgreSQL keeps them. A malformed line is an
//! error with its number, and no message shows what stands in a line (SEC-21, SEC-23).

use std::fmt;
use std::path::{Path, PathBuf};

use ahash::HashMap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::keys::{self, Credential, Key};

/// The fewest iterations: RFC 7677 §4.
pub const ITERATIONS_MIN: u32 = 4096;
/// The most, so that a slip in the file does not keep clients computing for minutes.
pub const ITERATIONS_MAX: u32 = 1_000_000;
/// What `tidegate scram` takes: RFC 7677 §4's rule of thumb.
pub const ITERATIONS_USUAL: u32 = 15_000;
/// The longest user name.
pub const NAME_BYTES_MAX: usize = 256;

/// Bytes of a salt that `tidegate scram` makes, like PostgreSQL's.
pub(super) const SALT_BYTES: usize = 16;
const SALT_BYTES_MIN: usize = 8;
/// No longer than what can be made up for a user who does not exist.
const SALT_BYTES_MAX: usize = keys::KEY_BYTES;

/// Between the name and the numbers. Base64 has no '-' and no '$', so the last one in a line is the one.
const SCHEME: &str = ":SCRAM-SHA-256$";

/// Who may log in with SCRAM-SHA-256.
#[derive(Default)]
pub struct Users {
    pub(super) by_name: HashMap<Box<str>, Credential>,
    /// Salt lengths and iterations in the order of the file, for the answers to names that are not in it.
    pub(super) shapes: Vec<Shape>,
}

/// What an answer tells of a credential besides the salt itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) salt_bytes: usize,
    pub(super) iterations: u32,
}

/// What is wrong with the file.
#[derive(Debug, thiserror::Error)]
pub enum UsersError {
    /// It cannot be read.
    #[error("cannot read {}: {error}", .file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// The system's word.
        error: std::io::Error,
    },
    /// A line of it.
    #[error("{}:{line}: {fault}", .file.display())]
    Line {
        /// The file.
        file: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong.
        fault: LineFault,
    },
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineFault {
    /// Something else stands there.
    #[error(
        "a line is name:SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey; `tidegate scram NAME` prints one"
    )]
    NotAUser,
    /// The name, or the password that is asked for.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// Two lines for one user.
    #[error("line {first} is about the same user")]
    Repeated {
        /// The other line.
        first: usize,
    },
    /// Too weak, or too slow.
    #[error("the iterations must be {ITERATIONS_MIN} to {ITERATIONS_MAX}")]
    Iterations,
    /// Unusable.
    #[error("the salt must be {SALT_BYTES_MIN} to {SALT_BYTES_MAX} bytes in base64")]
    Salt,
    /// Unusable.
    #[error("{0} must be 32 bytes in base64")]
    Key(&'static str),
}

/// A name or a password that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// RFC 4013.
    #[error("the user name is empty or has characters that SASLprep (RFC 4013) forbids")]
    Name,
    /// Too long.
    #[error("the user name has more than {NAME_BYTES_MAX} bytes")]
    LongName,
    /// It would not survive in the file.
    #[error("the user name begins with '#' or has a space at an end, which the file does not keep")]
    Unwritable,
    /// RFC 4013.
    #[error("the password is empty or has characters that SASLprep (RFC 4013) forbids")]
    Password,
}

impl Users {
    /// Reads the file. One without a user is nobody.
    pub fn load(file: &Path) -> Result<Self, UsersError> {
        let text = std::fs::read_to_string(file)
            .map_err(|error| UsersError::Read { file: file.to_owned(), error })?;
        Self::parse(file, &text)
    }

    /// The same for a text that is at hand; `file` stands in errors.
    pub fn parse(file: &Path, text: &str) -> Result<Self, UsersError> {
        let mut users = Self::default();
        let mut lines: HashMap<Box<str>, usize> = HashMap::default();
        for (at, text) in text.lines().enumerate() {
            let text = text.trim();
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let line = at + 1;
            let wrong = |fault| UsersError::Line { file: file.to_owned(), line, fault };
            let (name, credential) = user(text).map_err(wrong)?;
            if let Some(first) = lines.insert(name.clone(), line) {
                return Err(wrong(LineFault::Repeated { first }));
            }
            let shape = Shape { salt_bytes: credential.salt.len(), iterations: credential.iterations };
            users.shapes.push(shape);
            users.by_name.insert(name, credential);
        }
        Ok(users)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether nobody can log in.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }
}

/// Names are nobody's business, keys even less (SEC-23).
impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Users").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// The line for a user, with a salt of its own. Takes as long as `iterations` says.
pub fn user_line(name: &str, password: &str, iterations: u32) -> Result<String, SecretError> {
    line_with_salt(name, password, iterations, &rand::random::<[u8; SALT_BYTES]>())
}

pub(super) fn line_with_salt(
    name: &str,
    password: &str,
    iterations: u32,
    salt: &[u8],
) -> Result<String, SecretError> {
    let name = prepare_name(name)?;
    let password = keys::prepare(password).ok_or(SecretError::Password)?;
    let credential = Credential::new(&password, salt, iterations);
    let [salt, stored_key, server_key] = [&*credential.salt, &credential.stored_key, &credential.server_key]
        .map(|bytes| STANDARD.encode(bytes));
    Ok(format!("{name}{SCHEME}{iterations}:{salt}${stored_key}:{server_key}"))
}

fn user(line: &str) -> Result<(Box<str>, Credential), LineFault> {
    let (name, numbers) = line.rsplit_once(SCHEME).ok_or(LineFault::NotAUser)?;
    let (shape, keys) = numbers.split_once('$').ok_or(LineFault::NotAUser)?;
    let (iterations, salt) = shape.split_once(':').ok_or(LineFault::NotAUser)?;
    let (stored_key, server_key) = keys.split_once(':').ok_or(LineFault::NotAUser)?;
    let name = prepare_name(name)?;
    let iterations =
        iterations.parse().ok().filter(|count| (ITERATIONS_MIN..=ITERATIONS_MAX).contains(count));
    let salt = STANDARD.decode(salt).ok();
    let salt = salt.filter(|salt| (SALT_BYTES_MIN..=SALT_BYTES_MAX).contains(&salt.len()));
    let credential = Credential {
        iterations: iterations.ok_or(LineFault::Iterations)?,
        salt: salt.ok_or(LineFault::Salt)?.into(),
        stored_key: key(stored_key).ok_or(LineFault::Key("StoredKey"))?,
        server_key: key(server_key).ok_or(LineFault::Key("ServerKey"))?,
    };
    Ok((name, credential))
}

fn prepare_name(name: &str) -> Result<Box<str>, SecretError> {
    let name = keys::prepare(name).ok_or(SecretError::Name)?;
    if name.len() > NAME_BYTES_MAX {
        return Err(SecretError::LongName);
    }
    if name.starts_with('#') || name.trim().len() != name.len() {
        return Err(SecretError::Unwritable);
    }
    Ok(name.into())
}

fn key(text: &str) -> Option<Key> {
    STANDARD.decode(text).ok()?.try_into().ok()
}
