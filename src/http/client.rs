//! The client: its connections, its settings, and one request with a whole answer.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Certificate, NoProxy, Proxy, Response};
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};
use tokio::time::{timeout_at, Instant};

use crate::error::{Error, HttpErrorKind};
use crate::logs;

/// How long an idle connection is kept.
const IDLE: Duration = Duration::from_secs(60);

/// What the connections of one client have in common. Python reads the environment; nothing is read here.
#[derive(Debug, Clone)]
pub struct Options {
    /// `None` waits for ever.
    pub connect_timeout: Option<Duration>,
    /// Which proxy serves which scheme: `http`, `https` or `all`, the first that fits.
    pub proxies: Vec<(String, String)>,
    /// Hosts that are reached without a proxy, separated by commas.
    pub no_proxy: String,
    /// PEM files of certificate authorities, or folders of such files.
    pub ca_files: Vec<PathBuf>,
    /// Trust the system's authorities as well.
    pub system_cas: bool,
    /// Requests under way at once; further ones wait.
    pub max_connections: usize,
}

pub struct Request {
    pub url: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// The longest silence: for a connection, for the head, between two pieces of the body. `None` waits for ever.
    pub read_timeout: Option<Duration>,
    /// From the first await to the last byte.
    pub total_timeout: Option<Duration>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// An answer whose body is still to come.
pub struct Begun {
    pub response: Response,
    pub clock: Clock,
    // Given back when the body has been read, or nobody wants it any more.
    _place: OwnedSemaphorePermit,
}

impl Begun {
    /// The next piece of the body.
    pub async fn chunk(&mut self) -> Result<Option<impl std::ops::Deref<Target = [u8]>>, Error> {
        self.clock.within(self.response.chunk()).await
    }

    /// The rest of the body.
    pub async fn body(&mut self) -> Result<Vec<u8>, Error> {
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    pub fn head(&self) -> (u16, Vec<(String, String)>) {
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let headers = self.response.headers().iter();
        (
            self.response.status().as_u16(),
            headers
                .map(|(name, value)| (name.as_str().to_owned(), text(value)))
                .collect(),
        )
    }
}

/// The two limits of a request in time.
#[derive(Clone, Copy)]
pub struct Clock {
    read: Option<Duration>,
    deadline: Option<Instant>,
}

impl Clock {
    fn new(request: &Request) -> Self {
        Self {
            read: request.read_timeout,
            deadline: request
                .total_timeout
                .and_then(|total| Instant::now().checked_add(total)),
        }
    }

    async fn within<T, E>(&self, future: impl Future<Output = Result<T, E>>) -> Result<T, Error>
    where
        Error: From<E>,
    {
        let silence = self.read.and_then(|read| Instant::now().checked_add(read));
        let end = match (silence, self.deadline) {
            (Some(silence), Some(deadline)) => silence.min(deadline),
            (Some(end), None) | (None, Some(end)) => end,
            (None, None) => return Ok(future.await?),
        };
        match timeout_at(end, future).await {
            Ok(outcome) => Ok(outcome?),
            Err(_) => Err(Error::http(
                HttpErrorKind::Timeout,
                "the server did not answer in time",
            )),
        }
    }
}

/// What is said of a request: where it went, and how it ended. No more of an address is told, which may hold a key.
struct Asking {
    host: String,
    since: Instant,
    open: bool,
}

impl Asking {
    fn new(url: &str) -> Self {
        // Named beforehand, because the request is given away; not where nobody asks for it.
        let named = log::log_enabled!(target: logs::HTTP, log::Level::Info);
        Self {
            host: if named {
                host(url).to_owned()
            } else {
                String::new()
            },
            since: Instant::now(),
            open: true,
        }
    }

    fn answered(mut self, outcome: Result<u16, &Error>) {
        self.open = false;
        let (host, after) = (&self.host, self.since.elapsed());
        match outcome {
            Ok(status @ 400..) => {
                log::info!(target: logs::HTTP, "{host} answered {status} after {after:.1?}");
            }
            Ok(status) => {
                log::debug!(target: logs::HTTP, "{host} answered {status} after {after:.1?}")
            }
            Err(error) => {
                log::info!(target: logs::HTTP, "no answer from {host} after {after:.1?}: {error}");
            }
        }
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        if self.open {
            let (host, after) = (&self.host, self.since.elapsed());
            log::debug!(target: logs::HTTP, "a call of {host} was given up after {after:.1?}, without an answer");
        }
    }
}

/// The host of an address, with its port and without what may stand before it.
fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let place = rest.split(['/', '?', '#']).next().unwrap_or_default();
    place.rsplit('@').next().unwrap_or_default()
}

pub struct Client {
    options: Options,
    built: OnceCell<reqwest::Client>,
    places: Arc<Semaphore>,
}

impl Client {
    /// Nothing is opened or read before the first request.
    pub fn new(options: Options) -> Result<Self, Error> {
        if options.max_connections == 0 {
            return Err(Error::Invalid("max_connections must be at least 1".into()));
        }
        let places = options.max_connections.min(Semaphore::MAX_PERMITS);
        Ok(Self {
            options,
            built: OnceCell::new(),
            places: Arc::new(Semaphore::new(places)),
        })
    }

    pub async fn post(&self, request: Request) -> Result<Answer, Error> {
        let mut begun = self.begin(request).await?;
        let (status, headers) = begun.head();
        let body = begun.body().await?;
        Ok(Answer {
            status,
            headers,
            body,
        })
    }

    /// Sends the request; the answer's head is here when it ends.
    pub async fn begin(&self, request: Request) -> Result<Begun, Error> {
        let asking = Asking::new(&request.url);
        let begun = self.send(request).await;
        asking.answered(begun.as_ref().map(|begun| begun.response.status().as_u16()));
        begun
    }

    async fn send(&self, request: Request) -> Result<Begun, Error> {
        let clock = Clock::new(&request);
        let built = self.built.get_or_try_init(|| self.build()).await?;
        let places = Arc::clone(&self.places);
        let place = clock
            .within(async {
                places
                    .acquire_owned()
                    .await
                    .map_err(|_| Error::RuntimeClosed)
            })
            .await?;
        let sending = built
            .post(&request.url)
            .headers(header_map(request.headers)?)
            .body(request.body);
        let response = clock.within(sending.send()).await?;
        Ok(Begun {
            response,
            clock,
            _place: place,
        })
    }

    async fn build(&self) -> Result<reqwest::Client, Error> {
        let options = self.options.clone();
        // It reads files of certificates.
        tokio::task::spawn_blocking(move || build(&options))
            .await
            .map_err(|error| Error::Panic(error.to_string()))?
    }
}

fn build(options: &Options) -> Result<reqwest::Client, Error> {
    // Refused when somebody was first, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let wrong = |text: String| Error::http(HttpErrorKind::Connection, text);
    let mut builder = reqwest::Client::builder()
        .no_proxy()
        .pool_idle_timeout(IDLE)
        .tcp_nodelay(true);
    if let Some(timeout) = options.connect_timeout {
        builder = builder.connect_timeout(timeout);
    }
    let mut authorities = Vec::new();
    for path in &options.ca_files {
        authorities.extend(certificates(path).map_err(wrong)?);
    }
    builder = if options.system_cas {
        builder.tls_certs_merge(authorities)
    } else {
        builder.tls_certs_only(authorities)
    };
    let direct = NoProxy::from_string(&options.no_proxy);
    // reqwest would still ask the proxy for hosts that are addresses.
    let none = options.no_proxy.split(',').any(|host| host.trim() == "*");
    for (scheme, url) in options.proxies.iter().filter(|_| !none) {
        let proxy = match scheme.as_str() {
            "http" => Proxy::http(url),
            "https" => Proxy::https(url),
            _ => Proxy::all(url),
        };
        // Not the URL: it may hold a password.
        let proxy = proxy.map_err(|_| {
            wrong(format!(
                "the proxy for {scheme} has an address that is no URL"
            ))
        })?;
        builder = builder.proxy(proxy.no_proxy(direct.clone()));
    }
    builder
        .build()
        .map_err(|error| wrong(format!("no client can be made: {}", causes(&error))))
}

/// The certificates in a PEM file, or in the files of a folder, where what is none is passed over.
fn certificates(path: &Path) -> Result<Vec<Certificate>, String> {
    let unreadable = |error| format!("{} cannot be read: {error}", path.display());
    if !path.is_dir() {
        let pem = std::fs::read(path).map_err(unreadable)?;
        return Certificate::from_pem_bundle(&pem)
            .map_err(|error| format!("{} holds no certificates: {error}", path.display()));
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).map_err(unreadable)? {
        let file = entry.map_err(unreadable)?.path();
        let pem = std::fs::read(file).unwrap_or_default();
        found.extend(Certificate::from_pem_bundle(&pem).unwrap_or_default());
    }
    Ok(found)
}

fn header_map(headers: Vec<(String, String)>) -> Result<HeaderMap, Error> {
    let mut map = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers {
        let named = HeaderName::try_from(&name)
            .map_err(|_| Error::Invalid(format!("{name:?} cannot be the name of a header")))?;
        // Not the value: it may be a key.
        let mut value = HeaderValue::try_from(value).map_err(|_| {
            Error::Invalid(format!("the header {name} has a value that cannot be sent"))
        })?;
        value.set_sensitive(named == reqwest::header::AUTHORIZATION);
        map.append(named, value);
    }
    Ok(map)
}

/// The message of an error with those of its causes, which say more than it does.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

impl From<reqwest::Error> for Error {
    fn from(error: reqwest::Error) -> Self {
        // An address may hold a key.
        let error = error.without_url();
        if error.is_builder() {
            return Self::Invalid(format!("the request cannot be sent: {}", causes(&error)));
        }
        let kind = if error.is_timeout() {
            HttpErrorKind::Timeout
        } else {
            HttpErrorKind::Connection
        };
        Self::http(kind, causes(&error))
    }
}
