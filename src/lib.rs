//! The compiled core of fastcrew-async.

pub mod bridge;
pub mod error;
pub mod runtime;
pub mod store;
pub mod tools;

#[cfg(feature = "extension-module")]
#[pyo3::pymodule]
mod _core {
    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::bridge::awaitable::Awaitable;
    #[pymodule_export]
    use crate::runtime::Runtime;
    #[pymodule_export]
    use crate::store::PyStore;
    #[pymodule_export]
    use crate::tools::work_queue::{Job, WorkQueue};

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
