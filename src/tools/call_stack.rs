//! Who called whom: a frame on the heap for each crew, agent and tool call that is under way.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use thiserror::Error as ThisError;

/// How many frames of either end a message shows.
const SHOWN: usize = 5;

#[derive(Debug, PartialEq, Eq, ThisError)]
pub enum Refusal {
    #[error("{depth} nested calls are more than max_depth={limit} allows: {chain}")]
    TooDeep {
        depth: u32,
        limit: u32,
        chain: String,
    },
    #[error("{name} is called with the same arguments as further up the chain: {chain}")]
    Repeated { name: String, chain: String },
}

pub struct Frame {
    parent: Option<Arc<Frame>>,
    kind: String,
    name: String,
    arguments: Option<u64>,
    depth: u32,
    ended: AtomicBool,
}

impl Frame {
    /// A call made from inside `parent`, or from inside the innermost of its callers that is still under way. With
    /// `arguments`, the same call must not be under way further up.
    pub fn push(
        parent: Option<&Arc<Frame>>,
        kind: String,
        name: String,
        arguments: Option<&str>,
        limit: u32,
    ) -> Result<Arc<Self>, Refusal> {
        let parent = parent.and_then(|frame| frame.under_way());
        let frame = Arc::new(Self {
            kind,
            name,
            arguments: arguments.map(digest),
            depth: parent.as_ref().map_or(1, |parent| parent.depth + 1),
            parent,
            ended: AtomicBool::new(false),
        });
        if frame.depth > limit {
            return Err(Refusal::TooDeep {
                depth: frame.depth,
                limit,
                chain: frame.shown(),
            });
        }
        let same = |other: &Frame| {
            other.arguments == frame.arguments
                && other.name == frame.name
                && !other.ended.load(Ordering::Relaxed)
        };
        if frame.arguments.is_some() && frame.outwards().skip(1).any(same) {
            return Err(Refusal::Repeated {
                name: frame.name.clone(),
                chain: frame.shown(),
            });
        }
        Ok(frame)
    }

    pub fn depth(&self) -> u32 {
        self.depth
    }

    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The call is over: what it has left running (a task of its own) is not nested in it any more.
    pub fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    fn under_way(self: &Arc<Self>) -> Option<Arc<Self>> {
        std::iter::successors(Some(self), |frame| frame.parent.as_ref())
            .find(|frame| !frame.ended.load(Ordering::Relaxed))
            .cloned()
    }

    /// Kinds and names of the calls under way, the outermost first.
    pub fn chain(&self) -> Vec<(&str, &str)> {
        let mut chain: Vec<_> = self
            .outwards()
            .filter(|frame| !frame.ended.load(Ordering::Relaxed))
            .map(|frame| (frame.kind.as_str(), frame.name.as_str()))
            .collect();
        chain.reverse();
        chain
    }

    fn outwards(&self) -> impl Iterator<Item = &Frame> {
        std::iter::successors(Some(self), |frame| frame.parent.as_deref())
    }

    fn shown(&self) -> String {
        let chain: Vec<_> = self.chain().into_iter().map(|(_, name)| name).collect();
        if chain.len() <= 2 * SHOWN {
            return chain.join(" > ");
        }
        let (first, last) = (&chain[..SHOWN], &chain[chain.len() - SHOWN..]);
        let between = chain.len() - 2 * SHOWN;
        format!(
            "{} > ({between} more) > {}",
            first.join(" > "),
            last.join(" > ")
        )
    }
}

impl Drop for Frame {
    // One after another: a chain of ten thousand must not be dropped on ten thousand native stack frames.
    fn drop(&mut self) {
        let mut next = self.parent.take();
        while let Some(frame) = next {
            next = Arc::into_inner(frame).and_then(|mut frame| frame.parent.take());
        }
    }
}

fn digest(arguments: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    arguments.hash(&mut hasher);
    hasher.finish()
}

#[cfg(feature = "extension-module")]
pub use python::CallFrame;

#[cfg(feature = "extension-module")]
mod python {
    use super::{Frame, Refusal};
    use crate::error::Error;
    use pyo3::prelude::*;
    use std::sync::Arc;

    impl From<Refusal> for Error {
        fn from(refusal: Refusal) -> Self {
            Self::Recursion(refusal.to_string())
        }
    }

    /// One call under way.
    #[pyclass(frozen, module = "fastcrew_async._core")]
    pub struct CallFrame(Arc<Frame>);

    #[pymethods]
    impl CallFrame {
        #[new]
        #[pyo3(signature = (parent, kind, name, arguments, limit))]
        fn new(
            parent: Option<&Self>,
            kind: String,
            name: String,
            arguments: Option<&str>,
            limit: u32,
        ) -> PyResult<Self> {
            let parent = parent.map(|parent| &parent.0);
            Ok(Self(
                Frame::push(parent, kind, name, arguments, limit).map_err(Error::from)?,
            ))
        }

        /// 1 for an outermost call.
        #[getter]
        fn depth(&self) -> u32 {
            self.0.depth()
        }

        #[getter]
        fn kind(&self) -> &str {
            self.0.kind()
        }

        /// The call is over.
        fn end(&self) {
            self.0.end();
        }

        /// Kinds and names of the calls under way, the outermost first.
        fn chain(&self) -> Vec<(&str, &str)> {
            self.0.chain()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(parent: Option<&Arc<Frame>>, name: &str, arguments: Option<&str>) -> Arc<Frame> {
        Frame::push(parent, "tool".into(), name.into(), arguments, 100_000).unwrap()
    }

    #[test]
    fn a_chain_is_listed_from_the_outermost_call() {
        let crew = Frame::push(None, "crew".into(), "staff".into(), None, 9).unwrap();
        let tool = push(Some(&crew), "search", None);
        assert_eq!((crew.depth(), tool.depth()), (1, 2));
        assert_eq!(tool.chain(), [("crew", "staff"), ("tool", "search")]);
    }

    #[test]
    fn past_the_limit_the_chain_is_named_with_its_middle_left_out() {
        let mut frame = push(None, "0", None);
        for number in 1..12 {
            frame = push(Some(&frame), &number.to_string(), None);
        }
        let refusal = Frame::push(Some(&frame), "tool".into(), "last".into(), None, 12);
        let expected = "13 nested calls are more than max_depth=12 allows: \
                        0 > 1 > 2 > 3 > 4 > (3 more) > 8 > 9 > 10 > 11 > last";
        assert_eq!(refusal.err().unwrap().to_string(), expected);
    }

    #[test]
    fn the_same_call_further_up_is_refused_and_beside_it_is_not() {
        let first = push(None, "search", Some("{\"q\": 1}"));
        let between = push(Some(&first), "other", Some("{\"q\": 1}"));
        push(Some(&between), "search", Some("{\"q\": 2}"));
        push(Some(&between), "search", None);
        push(None, "search", Some("{\"q\": 1}"));
        let again = Frame::push(
            Some(&between),
            "tool".into(),
            "search".into(),
            Some("{\"q\": 1}"),
            9,
        );
        let expected = "search is called with the same arguments as further up the chain: \
                        search > other > search";
        assert_eq!(again.err().unwrap().to_string(), expected);
    }

    #[test]
    fn what_a_call_has_left_running_is_not_nested_in_it() {
        let crew = push(None, "staff", None);
        let tool = push(Some(&crew), "search", Some("{}"));
        tool.end();
        let left = push(Some(&tool), "search", Some("{}"));
        assert_eq!(left.depth(), 2);
        assert_eq!(left.chain(), [("tool", "staff"), ("tool", "search")]);
        crew.end();
        assert_eq!(left.chain(), [("tool", "search")]);
        assert_eq!(push(Some(&crew), "next", None).depth(), 1);
    }

    #[test]
    fn a_very_long_chain_is_dropped_on_a_small_stack() {
        let thread = std::thread::Builder::new().stack_size(64 * 1024);
        let work = || {
            let mut frame = push(None, "0", None);
            for _ in 0..100_000 - 1 {
                frame = push(Some(&frame), "n", None);
            }
            assert_eq!(frame.depth(), 100_000);
        };
        thread.spawn(work).unwrap().join().unwrap();
    }
}
