//! How a Rust thread tells an event loop that its completion queue is no longer empty.

use super::inbox::Bell;
use std::sync::mpsc::Sender;

/// The two ways to wake a loop.
pub enum Wake {
    /// A descriptor that the loop watches with `add_reader`: no Python is touched.
    #[cfg(unix)]
    Descriptor(Descriptor),
    /// Where there is no `add_reader`: the loop's key goes to the one thread that calls `call_soon_threadsafe`.
    Messenger { to: Sender<usize>, key: usize },
}

impl Bell for Wake {
    fn signal(&self) {
        match self {
            #[cfg(unix)]
            Self::Descriptor(descriptor) => descriptor.signal(),
            // The messenger ends with the runtime; what is not delivered then is nobody's.
            Self::Messenger { to, key } => drop(to.send(*key)),
        }
    }

    /// Makes the next `signal` visible again. Call it before looking at the queue.
    fn clear(&self) {
        match self {
            #[cfg(unix)]
            Self::Descriptor(descriptor) => descriptor.clear(),
            Self::Messenger { .. } => {}
        }
    }
}

#[cfg(target_os = "linux")]
pub use linux::Descriptor;
#[cfg(all(unix, not(target_os = "linux")))]
pub use other_unix::Descriptor;

#[cfg(target_os = "linux")]
mod linux {
    use rustix::event::{eventfd, EventfdFlags};
    use std::io;
    use std::os::fd::{AsRawFd, OwnedFd, RawFd};

    pub struct Descriptor(OwnedFd);

    impl Descriptor {
        pub fn new() -> io::Result<Self> {
            let flags = EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC;
            Ok(Self(eventfd(0, flags)?))
        }

        pub fn fileno(&self) -> RawFd {
            self.0.as_raw_fd()
        }

        pub fn signal(&self) {
            // It can only fail when the counter is full, and then the loop is being woken already.
            let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
        }

        pub fn clear(&self) {
            let _ = rustix::io::read(&self.0, &mut [0u8; 8]);
        }
    }
}

#[cfg(all(unix, not(target_os = "linux")))]
mod other_unix {
    use std::io::{self, Read, Write};
    use std::os::fd::{AsRawFd, RawFd};
    use std::os::unix::net::UnixStream;

    pub struct Descriptor {
        loop_end: UnixStream,
        core_end: UnixStream,
    }

    impl Descriptor {
        pub fn new() -> io::Result<Self> {
            let (loop_end, core_end) = UnixStream::pair()?;
            loop_end.set_nonblocking(true)?;
            core_end.set_nonblocking(true)?;
            Ok(Self { loop_end, core_end })
        }

        pub fn fileno(&self) -> RawFd {
            self.loop_end.as_raw_fd()
        }

        pub fn signal(&self) {
            // It can only fail when the buffer is full, and then the loop is being woken already.
            let _ = (&self.core_end).write(&[0]);
        }

        pub fn clear(&self) {
            let mut bytes = [0u8; 64];
            while matches!((&self.loop_end).read(&mut bytes), Ok(64)) {}
        }
    }
}
