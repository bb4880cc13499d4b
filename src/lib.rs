//! The compiled core of fastcrew-async.

pub mod bridge;
pub mod codec;
pub mod error;
pub mod http;
pub mod logs;
pub mod memory;
pub mod process;
pub mod runtime;
pub mod scheduler;
pub mod store;
pub mod tools;

#[cfg(feature = "extension-module")]
#[pyo3::pymodule]
mod _core {
    use pyo3::prelude::*;
    use pyo3::types::PyDict;

    #[pymodule_export]
    use crate::bridge::awaitable::Awaitable;
    #[pymodule_export]
    use crate::codec::python::{Codec, FrameSplitter};
    #[pymodule_export]
    use crate::http::{HttpClient, HttpStream};
    #[pymodule_export]
    use crate::logs::python::{log_hurry, log_levels, log_take, log_wait};
    #[pymodule_export]
    use crate::memory::PyMemories;
    #[pymodule_export]
    use crate::runtime::Runtime;
    #[pymodule_export]
    use crate::scheduler::python::{Retries, TaskGraph};
    #[pymodule_export]
    use crate::scheduler::python_limiter::Limiter;
    #[pymodule_export]
    use crate::store::PyStore;
    #[pymodule_export]
    use crate::tools::cache_python::{canonical, ResultCache};
    #[pymodule_export]
    use crate::tools::call_stack::CallFrame;
    #[pymodule_export]
    use crate::tools::work_queue::{Job, WorkQueue};

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        let os = module.py().import("os")?;
        if os.hasattr("register_at_fork")? {
            let hook = PyDict::new(module.py());
            let forked = wrap_pyfunction!(crate::process::forked, module)?;
            hook.set_item("after_in_child", forked)?;
            os.call_method("register_at_fork", (), Some(&hook))?;
        }
        Ok(())
    }
}
