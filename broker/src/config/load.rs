//! From the built-in file, the operator's file and the environment to one [`Config`].
//!
//! The operator's file is read by itself first, strictly, so that its errors have a line and a column. Then `config`
//! layers: built-in, file, environment. What comes out is checked as a whole.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use config::builder::DefaultState;
use config::{ConfigBuilder, File, FileFormat};
use toml::de::DeTable;

use super::check;
use super::error::{ConfigError, Place, Problem};
use super::locate::{KeyPath, Step, locate, suggestion, unknown_keys};
use super::{Config, Listener};

/// The defaults: `conf/tidegate.toml` as it was when the broker was built.
pub const BUILT_IN: &str = include_str!("../../../conf/tidegate.toml");

/// What the built-in file has only as a comment: the keys of its other tables.
const UNUSED: &str = "[[topic]]\nfilter = ''\nretain = ''\nqos_max = 0\nmax_payload = ''";

/// Tables of which there may be any number.
const LISTS: [&str; 2] = ["listener", "topic"];

/// Read when no file is named and this one exists.
const USUAL_FILE: &str = "./conf/tidegate.toml";

/// Two underscores on purpose: Kubernetes sets `TIDEGATE_PORT` and more of that kind for a service of our name.
const PREFIX: &str = "TIDEGATE__";

/// Where the settings came from, for the line at the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// `None`: only the built-in defaults.
    pub file: Option<PathBuf>,
    /// The variables that were obeyed.
    pub variables: Vec<String>,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(file) => write!(f, "{}", file.display())?,
            None => f.write_str("built-in defaults")?,
        }
        if !self.variables.is_empty() {
            write!(f, " and {}", self.variables.join(", "))?;
        }
        Ok(())
    }
}

/// A variable that overrides a key.
struct Variable {
    name: String,
    path: KeyPath,
    value: toml::Value,
}

/// The operator's file.
struct UserFile<'a> {
    name: &'a Path,
    text: &'a str,
    spans: DeTable<'a>,
}

/// All that settings came from, to say where a wrong one stands.
struct Origins<'a> {
    file: Option<&'a UserFile<'a>>,
    variables: &'a [Variable],
}

/// The variables of this process that are ours. Never fails on names or values of others that are not UTF-8.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| {
        let name = name.into_string().ok().filter(|name| name.starts_with(PREFIX))?;
        Some((name, value.to_string_lossy().into_owned()))
    })
}

impl Config {
    /// Reads `path`; without one `./conf/tidegate.toml` if that exists, else the built-in file. Variables that begin
    /// with `TIDEGATE__` override keys, others are ignored. The error holds every problem that could be found.
    pub fn load(
        path: Option<&Path>,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<(Self, Source), ConfigError> {
        let usual = Path::new(USUAL_FILE);
        let Some(path) = path.or_else(|| usual.exists().then_some(usual)) else {
            let (config, variables) = build(None, env)?;
            return Ok((config, Source { file: None, variables }));
        };
        let text = std::fs::read_to_string(path)
            .map_err(|error| Problem::whole(format!("cannot read {}: {error}", path.display())))?;
        let (config, variables) = build(Some((path, &text)), env)?;
        Ok((config, Source { file: Some(path.to_owned()), variables }))
    }

    /// The same for a text that is at hand; `name` stands in errors.
    pub fn from_text(
        name: &Path,
        text: &str,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        build(Some((name, text)), env).map(|(config, _)| config)
    }
}

fn build(
    file: Option<(&Path, &str)>,
    env: impl Iterator<Item = (String, String)>,
) -> Result<(Config, Vec<String>), ConfigError> {
    let unreadable = |error: toml::de::Error| Problem::whole(error.to_string());
    let built_in: toml::Table = BUILT_IN.parse().map_err(unreadable)?;
    let mut known = built_in.clone();
    overlay(&mut known, &UNUSED.parse().map_err(unreadable)?);
    let file = file.map(|(name, text)| UserFile::parse(name, text)).transpose()?;
    let mut own = toml::Table::new();
    if let Some(file) = &file {
        own = file.read(&built_in, &known)?;
    }
    let variables = variables(env, &built_in, &known, &mut own)?;
    let origins = Origins { file: file.as_ref(), variables: &variables };

    let layered = layers(&own, &variables).and_then(ConfigBuilder::<DefaultState>::build);
    let layered = layered.map_err(|error| Problem::whole(error.to_string()))?;
    let config: Config = serde_path_to_error::deserialize(layered)
        .map_err(|error| origins.problem(&KeyPath::from_serde(error.path()), type_error(error.inner())))?;

    let problems: Vec<_> = check::check(&config)
        .into_iter()
        .map(|finding| {
            let paths: Vec<_> = finding.keys.iter().map(|key| KeyPath::parse(key)).collect();
            origins.problem_in_any(&paths, finding.message)
        })
        .collect();
    if !problems.is_empty() {
        return Err(ConfigError { problems });
    }
    Ok((config, variables.into_iter().map(|variable| variable.name).collect()))
}

fn layers(
    own: &toml::Table,
    variables: &[Variable],
) -> Result<ConfigBuilder<DefaultState>, config::ConfigError> {
    let mut layers = config::Config::builder()
        .add_source(File::from_str(BUILT_IN, FileFormat::Toml))
        .add_source(File::from_str(&own.to_string(), FileFormat::Toml));
    for variable in variables {
        layers = layers.set_override(variable.path.to_string(), config_value(&variable.value))?;
    }
    Ok(layers)
}

fn config_value(value: &toml::Value) -> config::Value {
    match value {
        toml::Value::Integer(integer) => (*integer).into(),
        toml::Value::Float(float) => (*float).into(),
        toml::Value::Boolean(boolean) => (*boolean).into(),
        toml::Value::Array(array) => array.iter().map(config_value).collect::<Vec<_>>().into(),
        toml::Value::String(text) => text.as_str().into(),
        toml::Value::Datetime(_) | toml::Value::Table(_) => value.to_string().into(),
    }
}

impl<'a> UserFile<'a> {
    fn parse(name: &'a Path, text: &'a str) -> Result<Self, ConfigError> {
        match DeTable::parse(text) {
            Ok(spans) => Ok(Self { name, text, spans: spans.into_inner() }),
            Err(error) => {
                let span = error.span().unwrap_or_default();
                let place = Place::in_text(name, text, span);
                Err(Problem { place, ..Problem::whole(format!("not TOML: {}", error.message())) }.into())
            }
        }
    }

    /// Its values, when every key is known and every value has the right type. Listeners are made whole with what the
    /// built-in one has.
    fn read(&self, built_in: &toml::Table, known: &toml::Table) -> Result<toml::Table, ConfigError> {
        let problems: Vec<_> = unknown_keys(&self.spans, known)
            .into_iter()
            .map(|unknown| Problem {
                place: Place::in_text(self.name, self.text, unknown.span),
                key: unknown.path.to_string(),
                message: "unknown key".to_owned(),
                help: Some(unknown.help),
            })
            .collect();
        if !problems.is_empty() {
            return Err(ConfigError { problems });
        }
        let mut own: toml::Table =
            self.text.parse().map_err(|error: toml::de::Error| Problem::whole(error.message()))?;
        if let Some(toml::Value::Array(listeners)) = own.get_mut("listener") {
            for listener in listeners.iter_mut().filter_map(toml::Value::as_table_mut) {
                for (key, value) in built_in_item(built_in, "listener") {
                    listener.entry(key).or_insert(value);
                }
            }
        }
        let mut whole = built_in.clone();
        overlay(&mut whole, &own);
        let read: Result<Config, _> = serde_path_to_error::deserialize(toml::Value::Table(whole));
        if let Err(error) = read {
            let origins = Origins { file: Some(self), variables: &[] };
            let message = in_plain_words(error.inner().message());
            return Err(origins.problem(&KeyPath::from_serde(error.path()), message).into());
        }
        Ok(own)
    }
}

fn overlay(below: &mut toml::Table, above: &toml::Table) {
    for (key, value) in above {
        match (below.get_mut(key), value) {
            (Some(toml::Value::Table(below)), toml::Value::Table(above)) => overlay(below, above),
            _ => {
                below.insert(key.clone(), value.clone());
            }
        }
    }
}

/// What an item of a list has of itself; empty where the built-in file has none.
fn built_in_item(built_in: &toml::Table, list: &str) -> toml::Table {
    let items = built_in.get(list).and_then(toml::Value::as_array);
    items.and_then(|list| list.first()).and_then(toml::Value::as_table).cloned().unwrap_or_default()
}

/// Reads our variables. One that names the item behind the last of a list adds a copy of the built-in one to `own`.
fn variables(
    env: impl Iterator<Item = (String, String)>,
    built_in: &toml::Table,
    known: &toml::Table,
    own: &mut toml::Table,
) -> Result<Vec<Variable>, ConfigError> {
    let mut read = Vec::new();
    let mut problems = Vec::new();
    let mut env: Vec<_> = env.filter(|(name, _)| name.starts_with(PREFIX)).collect();
    env.sort();
    for (name, text) in env {
        match variable_path(&name, known).and_then(|path| Ok((path, variable_value(&text)?))) {
            Ok((path, value)) => read.push(Variable { name, path, value }),
            Err(message) => {
                problems.push(Problem { place: Place::Variable(name), ..Problem::whole(message) })
            }
        }
    }
    for list in LISTS {
        problems.extend(add_items(list, &read, built_in, own));
    }
    if problems.is_empty() { Ok(read) } else { Err(ConfigError { problems }) }
}

/// Makes room in a list for the items that only variables name. They continue it without a gap, or it is a problem.
fn add_items(
    list: &str,
    variables: &[Variable],
    built_in: &toml::Table,
    own: &mut toml::Table,
) -> Option<Problem> {
    let built_in_items = built_in.get(list).and_then(toml::Value::as_array).cloned().unwrap_or_default();
    let items = own.get(list).and_then(toml::Value::as_array).unwrap_or(&built_in_items);
    let count = items.len();
    let mut expected = count;
    let added: BTreeSet<_> =
        variables.iter().filter_map(|variable| variable.item(list)).filter(|at| *at >= count).collect();
    for index in added {
        if index != expected {
            let variable = variables.iter().find(|variable| variable.item(list) == Some(index));
            let message = format!("there is no {list} {index}; the next one would be {expected}");
            let place = variable.map_or(Place::Whole, |variable| Place::Variable(variable.name.clone()));
            return Some(Problem { place, ..Problem::whole(message) });
        }
        expected += 1;
    }
    if expected > count {
        let own = own.entry(list).or_insert_with(|| toml::Value::Array(built_in_items));
        if let toml::Value::Array(items) = own {
            items.resize(expected, toml::Value::Table(built_in_item(built_in, list)));
        }
    }
    None
}

impl Variable {
    /// Which item of this list it is about.
    fn item(&self, list: &str) -> Option<usize> {
        match self.path.0.as_slice() {
            [Step::Key(section), Step::Index(index), ..] if section == list => Some(*index),
            _ => None,
        }
    }
}

/// `TIDEGATE__LISTENER__0__BIND` is `listener[0].bind`.
fn variable_path(name: &str, known: &toml::Table) -> Result<KeyPath, String> {
    let mut path = KeyPath::default();
    let mut section = Some(known);
    let mut list: Option<&toml::Table> = None;
    for part in name.trim_start_matches(PREFIX).split("__") {
        if let Some(item) = list.take() {
            let index =
                part.parse::<u16>().map_err(|_| format!("`{path}` needs a number behind it, from 0"))?;
            path = path.join(Step::Index(usize::from(index)));
            section = Some(item);
            continue;
        }
        let key = part.to_ascii_lowercase();
        let Some(here) = section.take() else {
            return Err(format!("`{path}` is a key and has none below it"));
        };
        let Some(value) = here.get(&key) else {
            let path = path.join(Step::Key(key.clone()));
            return Err(format!("unknown key `{path}`; {}", suggestion(&key, here, known)));
        };
        path = path.join(Step::Key(key));
        match value {
            toml::Value::Table(inner) => section = Some(inner),
            toml::Value::Array(items) => list = items.first().and_then(toml::Value::as_table),
            _ => {}
        }
    }
    if section.is_some() || list.is_some() {
        return Err(format!("`{path}` is a section; name one of its keys"));
    }
    Ok(path)
}

/// A number, a truth value, a list or a quoted text as in the file; anything else is a text without quotes.
fn variable_value(text: &str) -> Result<toml::Value, String> {
    if text.contains('\u{FFFD}') {
        return Err("the value is not UTF-8".to_owned());
    }
    let document: Result<toml::Table, _> = format!("value = {text}").parse();
    match document.ok().filter(|table| table.len() == 1).and_then(|mut table| table.remove("value")) {
        Some(toml::Value::Datetime(_) | toml::Value::Table(_)) | None
            if text.trim_start().starts_with('[') =>
        {
            Err("the value begins like a list but is none; write it like [\"a\", \"b\"]".to_owned())
        }
        Some(toml::Value::Datetime(_) | toml::Value::Table(_)) | None => {
            Ok(toml::Value::String(text.to_owned()))
        }
        Some(value) => Ok(value),
    }
}

impl Origins<'_> {
    /// Where the value of `path` was set: the last layer counts.
    fn place(&self, path: &KeyPath) -> Place {
        let sets = |variable: &&Variable| variable.path.starts_with(path) || path.starts_with(&variable.path);
        if let Some(variable) = self.variables.iter().find(sets) {
            return Place::Variable(variable.name.clone());
        }
        let Some(file) = self.file else { return Place::BuiltIn };
        match locate(&file.spans, path) {
            Some(span) => Place::in_text(file.name, file.text, span),
            None => Place::BuiltIn,
        }
    }

    fn problem(&self, path: &KeyPath, message: String) -> Problem {
        Problem { place: self.place(path), key: path.to_string(), message, help: None }
    }

    /// About the first of `paths` that the operator set.
    fn problem_in_any(&self, paths: &[KeyPath], message: String) -> Problem {
        let set = paths.iter().find(|path| self.place(path) != Place::BuiltIn);
        match set.or_else(|| paths.first()) {
            Some(path) => self.problem(path, message),
            None => Problem::whole(message),
        }
    }
}

/// `config` adds its own idea of key and origin, which we know better.
fn type_error(error: &config::ConfigError) -> String {
    match error {
        config::ConfigError::Type { unexpected, expected, .. } => {
            in_plain_words(&format!("invalid type: {unexpected}, expected {expected}"))
        }
        config::ConfigError::At { error, .. } => type_error(error),
        other => in_plain_words(&other.to_string()),
    }
}

/// Rust's names of types in an operator's words.
fn in_plain_words(message: &str) -> String {
    let message = message.lines().next().unwrap_or_default().trim_end();
    let Some((found, expected)) = message.rsplit_once("expected ") else { return message.to_owned() };
    let plain = match expected {
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" | "u64" | "usize" | "i64" | "an integer" => "a whole number, not negative",
        "f64" | "f32" | "a floating point" => "a number",
        "bool" | "a boolean" => "true or false",
        "string or table" | "string only" | "enum" => "a text in quotes",
        "a sequence" | "an array" => "a list in [ ]",
        _ if expected.contains("map") || expected.starts_with("struct") => "a section in [ ] of its own",
        other => other,
    };
    // What toml calls a value that is no word, whatever it is.
    let found = found.replace(": unit variant", "");
    format!("{found}expected {plain}")
}

impl Listener {
    /// Whether only this machine can reach it.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.bind.ip().to_canonical().is_loopback()
    }
}
