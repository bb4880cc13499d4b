use pyo3::prelude::*;
#[pyclass(frozen, module = "fastcrew_async._core")]
pub struct Job;
impl Job {
    pub fn abandon(&self) {}
}
