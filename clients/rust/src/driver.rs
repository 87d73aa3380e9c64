//! The client's only task: moves requests and events between the user's handles, the session and the connection,
//! and connects again. Decides nothing about the protocol.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tidegate_protocol::raw::client::Answer;
use tidegate_protocol::websocket::prepared::Outgoing;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::connection::Connection;
use crate::error::{ConnectError, Disconnect};
use crate::event::{End, Event, EventSender};
use crate::heartbeat::{Beat, Heartbeat};
use crate::options::Options;
use crate::retry::{Pauses, Retry};
use crate::session::{Session, Waiting};
use crate::url::Endpoint;

/// What the handles ask of the task.
#[derive(Debug)]
pub(crate) enum Command {
    /// An operation without an answer.
    Send(Outgoing),
    /// An operation with one.
    Request { id: u32, outgoing: Outgoing, waiting: Waiting },
    /// Sends what is queued, closes, and says when that is done.
    Close { done: oneshot::Sender<()> },
}

/// What the handles may look at.
#[derive(Debug)]
pub(crate) struct Status {
    pub(crate) is_connected: AtomicBool,
    /// The broker's limit.
    pub(crate) message_bytes_max: AtomicUsize,
}

/// Everything that outlives a connection.
#[derive(Debug)]
pub(crate) struct Driver {
    pub(crate) endpoint: Endpoint,
    pub(crate) options: Arc<Options>,
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) events: EventSender,
    pub(crate) status: Arc<Status>,
    pub(crate) session: Session,
    pub(crate) pauses: Pauses,
}

/// Why a connection is not served any more.
enum Stop {
    /// The user wants it.
    Close(oneshot::Sender<()>),
    /// It is gone.
    Lost(Disconnect),
}

impl From<Disconnect> for Stop {
    fn from(cause: Disconnect) -> Self {
        Self::Lost(cause)
    }
}

impl Status {
    pub(crate) fn set_connected(&self, connection: &Connection) {
        self.message_bytes_max.store(connection.message_bytes_max, Ordering::Relaxed);
        self.is_connected.store(true, Ordering::Release);
    }
}

impl Driver {
    /// Runs until the user closes the client or the broker does for good. To be dropped at any time.
    pub(crate) async fn run(mut self, mut connection: Connection) {
        loop {
            let since = Instant::now();
            let Err(stop) = self.serve(&mut connection).await;
            self.status.is_connected.store(false, Ordering::Release);
            let cause = match stop {
                Stop::Close(done) => {
                    let closing = timeout(self.options.close_timeout, connection.close());
                    // In time or not, well or not: the user has asked for the end.
                    let _ = closing.await;
                    self.session.handle_lost();
                    let _ = done.send(());
                    return;
                }
                Stop::Lost(Disconnect::Io(error)) => {
                    let last_words = timeout(self.options.close_timeout, connection.last_words()).await;
                    last_words.ok().flatten().unwrap_or(Disconnect::Io(error))
                }
                Stop::Lost(cause) => cause,
            };
            if let Some(code) = cause.close_code() {
                connection.send_close(code, &cause.to_string());
            }
            drop(connection);
            self.pauses.handle_end(since.elapsed());
            let Some(next) = self.reconnect(cause).await else { return };
            connection = next;
        }
    }

    /// Drives one connection.
    async fn serve(&mut self, connection: &mut Connection) -> Result<std::convert::Infallible, Stop> {
        let limits = self.options.limits;
        let mut heartbeat =
            Heartbeat::new(self.options.ping_interval, self.options.ping_timeout, Instant::now());
        for sub in self.session.restore() {
            connection.send(sub);
        }
        loop {
            self.handle_input(connection)?;
            connection.write()?;
            let has_room = !self.events.is_full();
            let takes_commands = connection.output_bytes() < limits.output_bytes_max
                && self.session.waiting_len(limits.in_flight_max) < limits.in_flight_max;
            tokio::select! {
                command = self.commands.recv(), if takes_commands => self.handle_command(command, connection)?,
                ready = connection.readable(), if has_room => Self::read(ready, connection, &mut heartbeat)?,
                () = self.events.room(), if !has_room => heartbeat.handle_resumed(Instant::now()),
                ready = connection.writable(), if connection.output_bytes() > 0 => ready?,
                // While we do not read, an answer may be waiting for us.
                () = sleep_until(heartbeat.poll_timeout()), if has_room => Self::beat(connection, &mut heartbeat)?,
            }
        }
    }

    /// Does what is here, up to the limit of the events.
    fn handle_input(&mut self, connection: &mut Connection) -> Result<(), Disconnect> {
        while !self.events.is_full() {
            let Some(message) = connection.poll_message()? else { return Ok(()) };
            let event = self.session.handle_answer(Answer::decode(&message)?, Instant::now())?;
            if let Some(event) = event {
                self.events.push(event);
            }
        }
        Ok(())
    }

    fn read(
        ready: Result<(), Disconnect>,
        connection: &mut Connection,
        heartbeat: &mut Heartbeat,
    ) -> Result<(), Disconnect> {
        ready?;
        if connection.read()? {
            heartbeat.handle_input(Instant::now());
        }
        Ok(())
    }

    fn beat(connection: &mut Connection, heartbeat: &mut Heartbeat) -> Result<(), Disconnect> {
        match heartbeat.handle_timeout(Instant::now()) {
            Beat::Wait => {}
            Beat::SendPing => connection.send_ping(),
            Beat::GiveUp => return Err(Disconnect::PingTimeout),
        }
        Ok(())
    }

    /// Puts a command, and those right behind it, into the write buffer.
    fn handle_command(&mut self, command: Option<Command>, connection: &mut Connection) -> Result<(), Stop> {
        let limits = self.options.limits;
        let mut next = command;
        while let Some(command) = next {
            match command {
                Command::Send(outgoing) => connection.send(outgoing),
                Command::Request { id, outgoing, waiting } => {
                    self.session.handle_request(id, waiting);
                    connection.send(outgoing);
                }
                Command::Close { done } => return Err(Stop::Close(done)),
            }
            let is_full = connection.output_bytes() >= limits.output_bytes_max
                || self.session.waiting_len(limits.in_flight_max) >= limits.in_flight_max;
            next = if is_full { None } else { self.commands.try_recv().ok() };
        }
        Ok(())
    }

    /// Tells the user, waits, and tries until there is a connection; `None` is the end.
    async fn reconnect(&mut self, cause: Disconnect) -> Option<Connection> {
        let bye_after = self.session.handle_lost();
        let pause = self.pauses.next(Retry::after(&cause, bye_after), rand::random());
        let Some(mut pause) = pause else {
            return self.end(End::Disconnect(cause)).await;
        };
        let mut lost = Some(Event::Lost { cause, retry_in: pause });
        loop {
            match self.attempt(lost.take(), pause).await? {
                Ok(connection) => {
                    self.events.push(Event::Restored { may_have_gap: self.session.has_subscriptions() });
                    self.status.set_connected(&connection);
                    return Some(connection);
                }
                Err(error) => match self.pauses.next(Retry::after_attempt(&error), rand::random()) {
                    Some(next) => pause = next,
                    None => return self.end(End::Connect(error)).await,
                },
            }
        }
    }

    /// One attempt after a pause. `None`: the user wants to close.
    async fn attempt(
        &mut self,
        lost: Option<Event>,
        pause: Duration,
    ) -> Option<Result<Connection, ConnectError>> {
        let Self { endpoint, options, commands, events, session, .. } = self;
        let attempt = async {
            // A user who does not read is not told more and more; the connection can wait for it, too.
            events.room().await;
            if let Some(lost) = lost {
                events.push(lost);
            }
            sleep(pause).await;
            let connection = Connection::open(endpoint, options).await?;
            events.room().await;
            Ok(connection)
        };
        tokio::pin!(attempt);
        loop {
            tokio::select! {
                result = &mut attempt => return Some(result),
                command = commands.recv() => Self::refuse(command?, session)?,
            }
        }
    }

    /// The last event. A user who never reads it may still close the client.
    async fn end<T>(&mut self, end: End) -> Option<T> {
        let Self { commands, events, session, .. } = self;
        // Requests fail from here on, those in the queue included.
        commands.close();
        while let Ok(command) = commands.try_recv() {
            let _ = Self::refuse(command, session);
        }
        events.room().await;
        events.push(Event::Ended(end));
        None
    }

    /// Without a connection. `None`: the user wants to close, and there is nothing to be closed.
    fn refuse(command: Command, session: &mut Session) -> Option<()> {
        match command {
            // Fire and forget.
            Command::Send(_) => {}
            Command::Request { waiting, .. } => session.handle_request_unconnected(waiting),
            Command::Close { done } => {
                let _ = done.send(());
                return None;
            }
        }
        Some(())
    }
}
