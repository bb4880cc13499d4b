//! A stream of server-sent events, read only while somebody waits for the next ones.

use std::sync::Arc;

use tokio::sync::Mutex;

use super::client::{Answer, Begun, Client, Request};
use super::sse::{Parser, MAX_EVENT};
use crate::error::{Error, HttpErrorKind};

enum State {
    New(Request),
    Open(Box<Begun>, Parser),
    Ended,
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
            *state = State::Open(Box::new(begun), Parser::new(MAX_EVENT));
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
        let State::Open(begun, parser) = &mut *state else {
            return Ok(None);
        };
        let outcome = read(begun, parser).await;
        if !matches!(outcome, Ok(Some(_))) {
            *state = State::Ended;
        }
        outcome
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

async fn read(begun: &mut Begun, parser: &mut Parser) -> Result<Option<Vec<String>>, Error> {
    let mut events = Vec::new();
    while let Some(chunk) = begun.chunk().await? {
        parser.feed(&chunk, &mut events).map_err(|_| {
            let text = format!("an event of the stream is longer than {MAX_EVENT} bytes");
            Error::http(HttpErrorKind::Connection, text)
        })?;
        if !events.is_empty() {
            return Ok(Some(events));
        }
    }
    Ok(None)
}
