//! The client as Python sees it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pyo3::prelude::*;

use super::client::{Answer, Client, Options, Request};
use super::events::Events;
use crate::bridge::awaitable::Awaitable;
use crate::bridge::value::Value;
use crate::error::Error;
use crate::process::Owned;
use crate::runtime::Runtime;

/// A pool of connections, shared by all who hold it.
#[pyclass(frozen, module = "fastcrew_async._core")]
pub struct HttpClient {
    runtime: Py<Runtime>,
    client: Owned<Client>,
}

#[pymethods]
impl HttpClient {
    #[new]
    fn new(
        runtime: Py<Runtime>,
        connect_timeout: Option<f64>,
        proxies: Vec<(String, String)>,
        no_proxy: String,
        ca_files: Vec<PathBuf>,
        system_cas: bool,
        max_connections: usize,
    ) -> PyResult<Self> {
        runtime.get().core().check_process("runtime")?;
        let client = Client::new(Options {
            connect_timeout: seconds("connect_timeout", connect_timeout)?,
            proxies,
            no_proxy,
            ca_files,
            system_cas,
            max_connections,
        })?;
        Ok(Self {
            runtime,
            client: Owned::new("client", client),
        })
    }

    /// ``(status, headers, body)`` of a POST.
    fn post(
        &self,
        py: Python<'_>,
        url: String,
        headers: Vec<(String, String)>,
        body: &[u8],
        read_timeout: Option<f64>,
        total_timeout: Option<f64>,
    ) -> PyResult<Awaitable> {
        let request = request(url, headers, body, read_timeout, total_timeout)?;
        let client = Arc::clone(self.client.get()?);
        let posting = async move { client.post(request).await.map(answer) };
        Ok(Awaitable::new(self.runtime.clone_ref(py), posting))
    }

    fn post_sync(
        &self,
        py: Python<'_>,
        url: String,
        headers: Vec<(String, String)>,
        body: &[u8],
        read_timeout: Option<f64>,
        total_timeout: Option<f64>,
    ) -> PyResult<Py<PyAny>> {
        let request = request(url, headers, body, read_timeout, total_timeout)?;
        let client = Arc::clone(self.client.get()?);
        let posting = async move { client.post(request).await.map(answer) };
        self.runtime.get().wait_interruptibly(py, posting)
    }

    /// The same request, answered as a stream of events; nothing is sent before it is opened.
    fn stream(
        &self,
        py: Python<'_>,
        url: String,
        headers: Vec<(String, String)>,
        body: &[u8],
        read_timeout: Option<f64>,
        total_timeout: Option<f64>,
    ) -> PyResult<HttpStream> {
        let request = request(url, headers, body, read_timeout, total_timeout)?;
        let client = Arc::clone(self.client.get()?);
        Ok(HttpStream {
            runtime: self.runtime.clone_ref(py),
            events: Owned::new("stream", Events::new(client, request)),
        })
    }
}

/// One streamed answer. Deleting or closing it closes its connection.
#[pyclass(frozen, module = "fastcrew_async._core")]
pub struct HttpStream {
    runtime: Py<Runtime>,
    events: Owned<Events>,
}

#[pymethods]
impl HttpStream {
    /// ``(status, headers, body)``; the body of an answer that is no success, where no stream follows.
    fn open(&self, py: Python<'_>) -> PyResult<Awaitable> {
        let events = Arc::clone(self.events.get()?);
        let opening = async move { events.open().await.map(answer) };
        Ok(Awaitable::new(self.runtime.clone_ref(py), opening))
    }

    fn open_sync(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let events = Arc::clone(self.events.get()?);
        let opening = async move { events.open().await.map(answer) };
        self.runtime.get().wait_interruptibly(py, opening)
    }

    /// The data of the events that have come since, at least one; None at the end.
    fn next(&self, py: Python<'_>) -> PyResult<Awaitable> {
        let events = Arc::clone(self.events.get()?);
        let reading = async move { events.next().await.map(texts) };
        Ok(Awaitable::new(self.runtime.clone_ref(py), reading))
    }

    fn next_sync(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let events = Arc::clone(self.events.get()?);
        let reading = async move { events.next().await.map(texts) };
        self.runtime.get().wait_interruptibly(py, reading)
    }

    /// Closes the connection.
    fn close(&self) -> PyResult<()> {
        // In a forked child the connection is the parent's.
        if let Ok(events) = self.events.get().map(Arc::clone) {
            if !events.close() {
                let closing = async move { events.close_soon().await };
                self.runtime.get().core().spawn(closing);
            }
        }
        Ok(())
    }
}

fn request(
    url: String,
    headers: Vec<(String, String)>,
    body: &[u8],
    read_timeout: Option<f64>,
    total_timeout: Option<f64>,
) -> Result<Request, Error> {
    Ok(Request {
        url,
        headers,
        body: body.to_vec(),
        read_timeout: seconds("read_timeout", read_timeout)?,
        total_timeout: seconds("total_timeout", total_timeout)?,
    })
}

fn seconds(name: &str, value: Option<f64>) -> Result<Option<Duration>, Error> {
    value.map_or(Ok(None), |value| {
        Duration::try_from_secs_f64(value).map(Some).map_err(|_| {
            Error::Invalid(format!(
                "{name} must be seconds from 0 on, or None, not {value}"
            ))
        })
    })
}

fn answer(answer: Answer) -> Value {
    let header = |(name, value)| Value::Tuple(vec![Value::Text(name), Value::Text(value)]);
    Value::Tuple(vec![
        Value::Int(answer.status.into()),
        Value::List(answer.headers.into_iter().map(header).collect()),
        Value::Bytes(answer.body),
    ])
}

fn texts(events: Option<Vec<String>>) -> Value {
    events.map_or(Value::None, |events| {
        Value::List(events.into_iter().map(Value::Text).collect())
    })
}
