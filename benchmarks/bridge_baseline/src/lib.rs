//! The operations of the core's runtime, through pyo3-async-runtimes.

#[pyo3::pymodule]
mod bridge_baseline {
    use pyo3::prelude::*;
    use pyo3_async_runtimes::tokio::{future_into_py, init};

    #[pymodule_init]
    fn start(_module: &Bound<'_, PyModule>) -> PyResult<()> {
        // As many worker threads as the core's runtime has.
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(1).enable_all();
        init(builder);
        Ok(())
    }

    #[pyfunction]
    fn echo(py: Python<'_>, value: i64) -> PyResult<Bound<'_, PyAny>> {
        future_into_py(py, async move { Ok(value) })
    }

    #[pyfunction]
    fn sleep(py: Python<'_>, seconds: f64) -> PyResult<Bound<'_, PyAny>> {
        let duration = std::time::Duration::from_secs_f64(seconds);
        future_into_py(py, async move {
            tokio::time::sleep(duration).await;
            Ok(())
        })
    }
}
