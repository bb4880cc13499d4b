//! A stream of server-sent events, read only while somebody waits for the next ones.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{timeout_at, Instant};

use super::client::{Answer, Begun, Client, Request};
use super::sse::{Parser, MAX_EVENT};
use crate::error::{Error, HttpErrorKind};

/// The least time between two batches of events. The first is given out at once, and so is each that comes later than
/// this: what comes faster is put together, because a wake of the loop costs more than what it brings.
const PACE: Duration = Duration::from_millis(2);
/// No more is put together than this, in bytes as they came.
const BATCH: usize = 64 * 1024;

enum State {
    New(Request),
    Open(Box<Reading>),
    /// The error that ended it, to be told after the events before it.
    Failed(Error),
    Ended,
}

struct Reading {
    begun: Begun,
    parser: Parser,
    /// When events were given out for the last time.
    last: Option<Instant>,
    /// What has come and was not given out, because nobody waits for it any more.
    events: Vec<String>,
}

/// One streamed answer. What is not asked for stays in the socket, so that a slow reader slows the server.
pub struct Events {
    client: Arc<Client>,
    state: Mutex<State>,
}

impl Events {
    pub fn new(client: Arc<Client>, request: Request) -> Self {
        Self {
            client,
            state: Mutex::new(State::New(request)),
        }
    }

    /// Sends the request. An answer that is no success is read whole, and there is no stream then.
    pub async fn open(&self) -> Result<Answer, Error> {
        let mut state = self.state.lock().await;
        let State::New(request) = std::mem::replace(&mut *state, State::Ended) else {
            return Err(Error::Invalid("this stream was opened before".into()));
        };
        let mut begun = self.client.begin(request).await?;
        let (status, headers) = begun.head();
        let mut body = Vec::new();
        if status < 400 {
            *state = State::Open(Box::new(Reading {
                begun,
                parser: Parser::new(MAX_EVENT),
                last: None,
                events: Vec::new(),
            }));
        } else {
            body = begun.body().await?;
        }
        Ok(Answer {
            status,
            headers,
            body,
        })
    }

    /// The data of the events that have come since, at least one; `None` at the end. After an error it is at its end.
    pub async fn next(&self) -> Result<Option<Vec<String>>, Error> {
        let mut state = self.state.lock().await;
        let reading = match &mut *state {
            State::Open(reading) => reading,
            State::Failed(_) => match std::mem::replace(&mut *state, State::Ended) {
                State::Failed(error) => return Err(error),
                _ => return Ok(None),
            },
            _ => return Ok(None),
        };
        let outcome = reading.read().await;
        reading.last = Some(Instant::now());
        let events = std::mem::take(&mut reading.events);
        // What came before the end or the error is told first.
        match outcome {
            Ok(true) => {}
            Err(error) if events.is_empty() => {
                *state = State::Ended;
                return Err(error);
            }
            Err(error) => *state = State::Failed(error),
            Ok(false) => *state = State::Ended,
        }
        Ok((!events.is_empty()).then_some(events))
    }

    /// Closes the connection; nothing is left to do when it is closed already. `false` while somebody reads.
    pub fn close(&self) -> bool {
        match self.state.try_lock() {
            Ok(mut state) => {
                *state = State::Ended;
                true
            }
            Err(_) => false,
        }
    }

    /// Closes the connection once who reads has been stopped.
    pub async fn close_soon(&self) {
        *self.state.lock().await = State::Ended;
    }
}

impl Reading {
    /// Adds what has come to `events`, at least one; whether there may be more.
    async fn read(&mut self) -> Result<bool, Error> {
        let due = self.last.map(|last| last + PACE);
        let mut size = 0;
        loop {
            let chunk = match due {
                _ if self.events.is_empty() => self.begun.chunk().await?,
                Some(due) if size < BATCH => match timeout_at(due, self.begun.chunk()).await {
                    Ok(chunk) => chunk?,
                    Err(_) => return Ok(true),
                },
                _ => return Ok(true),
            };
            let Some(chunk) = chunk else {
                return Ok(false);
            };
            size += chunk.len();
            self.parser.feed(&chunk, &mut self.events).map_err(|_| {
                let text = format!("an event of the stream is longer than {MAX_EVENT} bytes");
                Error::http(HttpErrorKind::Connection, text)
            })?;
        }
    }
}
