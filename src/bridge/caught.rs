//! A panic of one operation is that operation's error, and nobody else's.

use crate::error::Error;
use crate::logs;
use std::future::Future;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::pin::pin;
use std::task::Poll;

/// The outcome of `future`, where a panic is an error like any other.
pub async fn caught<T>(future: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let mut future = pin!(future);
    // Unwind safe: after a panic the future is only dropped.
    std::future::poll_fn(move |context| {
        match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
            Ok(poll) => poll,
            Err(payload) => {
                let error = Error::from_panic(&*payload);
                log::error!(target: logs::RUNTIME, "{error}");
                Poll::Ready(Err(error))
            }
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_becomes_the_error_of_its_operation() {
        let number = 3;
        let formatted = caught::<()>(async { panic!("no tea in pot {number}") }).await;
        let plain = caught::<()>(async { panic!("no tea") }).await;
        assert_eq!(formatted, Err(Error::Panic("no tea in pot 3".to_owned())));
        assert_eq!(plain, Err(Error::Panic("no tea".to_owned())));
        assert_eq!(caught(async { Ok(7) }).await, Ok(7));
    }
}
